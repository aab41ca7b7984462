"""From gridded visibilities to a posterior."""
