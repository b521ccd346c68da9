"""What crosses a role boundary, and nothing else.

Trust: `signing` (Ed25519 keys, domain-separated signatures), `keyfiles` (private keys on
disk), `delegation` and `latest` (the root's word, and the current one; together `trust`),
`artifacts` (manifests; with `documents`, `entries`, `folders`), `invites` (codes and
confirmations).

Closed to the cloud: `keying` (keyed rows in, un-keyed replies out; with `deviceinfo`) and
`sealing` (bundles that one device alone can open; with `stream`).

The wire: `wire` (the frame), `connection`, `tls`, `replies`, `blob_transfer` and `transport`
(one typed client), `access` (a party's account in its home).

Around them: `errors`, `files` (atomic and private writes), `tensorfile` (safetensors without
torch), `config`, `telemetry`, `console`, `cli` (`triparty ROLE VERB`), `demo`.
"""
