"""The cloud (P2): keeps what developers publish and serves re-keyed models.

It holds no key of a model, of a developer or of a device, and imports nothing that could use
one. What it says is verified again by whoever it says it to.

A request goes `middleware` (id, log, limits) -> `auth` (who asks) -> a route -> the database
or the disk, in one transaction; an error of any of them becomes a `problems` document.

- `cli`: init, serve, invite, status; behind it `initialise`, `server`, `desk`
- `settings`: what a cloud is told; `tls`: its certificate and pin
- `app`: the ASGI application, put together; `state`: what the routes share
- `accounts`, `auth`, `account_routes`, `enroll`: principals, tokens, invites
- `blobs`, `blob_routes`: content-addressed files, resumable
- `publishing`, `artifacts`: what is visible to whom; `catalog`: models for the engine
- `tables`, `database`, `migrations`: the SQL store; `bodies`: the JSON of the routes
- `serving`: sessions, batches, the model itself
"""
