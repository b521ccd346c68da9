"""Links trained across sites: the developer's side, on Flower.

`federation.py` is the folder of one federation, `service.py` what `triparty developer federate`
does, `server_app.py` what runs inside Flower, `guarded.py` its rounds. `flower.py` is the one
file that touches private parts of Flower.
"""
