"""Streams of compressed video: sources, packets, what their headers say, closure decode."""
