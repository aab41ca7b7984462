"""From a posterior to one self-contained HTML page."""
