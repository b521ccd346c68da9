"""The developer (P1): owns the weights, makes everything that is signed.

* `protect`: the compiler that re-keys a model; `verify` compares, `audit` attacks it.
* `publish`, `rotate`: protected models on the cloud, and their next key epoch.
* `invite`, `grant`: devices, and the bundles that are sealed to them.
* `home`, `enroll`, `statements`: keys, account, what is current.
* `example_model`: a small model to try things with.
"""
