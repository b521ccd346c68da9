"""A conversation at the terminal: `triparty device chat`."""
