"""Features to numbers: one statistic per file."""
