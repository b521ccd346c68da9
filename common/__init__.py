"""What crosses a role boundary, and nothing else.

* `errors`: every exception, and its problem document on the wire.
* `files`: atomic and private writes, safe relative paths.
* `signing`: Ed25519 keys and domain-separated signatures.
* `trust`: delegations, latest statements, who may sign what, rollback.
* `artifacts`: manifests; describing, signing and verifying a folder.
* `sealing`: bundles that one device alone can open (closed to the cloud).
* `keying`: keyed rows in, un-keyed replies out (closed to the cloud).
* `invites`: invite codes and enrolment confirmations.
* `wire`: the frame.
* `transport`: the HTTPS client that developer and device share.
* `config`: TOML and environment into typed settings.
* `telemetry`: structured logs.
* `console`: what a command prints.
* `cli`: `triparty ROLE VERB`; `demo`: all three roles on this machine.
"""
