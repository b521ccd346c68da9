"""Links trained across sites: what a device does, on Flower.

`client_app.py` runs inside Flower's SuperNode, `supernode.py` is what a device keeps and decides.
"""
