"""What the headers of compressed pictures say, a file a codec."""
