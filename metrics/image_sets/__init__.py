"""Image sets: from whatever holds images to items with keys, labels, pixels and licences."""
