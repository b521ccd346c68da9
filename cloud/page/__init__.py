"""The operator's page: what the cloud holds and does, and the one thing it may end there."""
