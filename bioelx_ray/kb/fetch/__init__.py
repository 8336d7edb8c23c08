"""Public sources: which there are, and downloading them."""
