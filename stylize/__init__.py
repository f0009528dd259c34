"""Make images: formula-driven patterns, and the look of real photos moved onto them."""
