"""What web pages of two roles have in common: who may see them, and how they look."""
