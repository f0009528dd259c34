"""Two image sets to a gap report."""
