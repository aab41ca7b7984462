"""One file for each thing shown; every function takes and returns Axes."""
