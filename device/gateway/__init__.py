"""The camera gateway: one loop from packets to results."""
