"""One file a revision; the number orders them."""
