"""From a measurement set to gridded visibilities."""
