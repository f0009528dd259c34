"""Writing image sets."""
