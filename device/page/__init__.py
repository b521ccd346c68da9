"""The web page of the camera gateway: what it sees, what it decodes, and its settings."""
