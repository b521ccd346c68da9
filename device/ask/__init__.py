"""A question in plain words, answered from what a gateway recorded."""
