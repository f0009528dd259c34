"""Search for the method that closes most of the gap within a budget."""
