"""Features of image sets: extraction, cache, files."""
