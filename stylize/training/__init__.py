"""Training of the amortised network."""
