"""Links trained across sites: what a device does, on Flower.

`supernode.py` is what a device keeps and starts, `client_app.py` what runs inside Flower,
`recordings.py` the training, `local_global.py` what a site makes of the link that came of it.
"""
