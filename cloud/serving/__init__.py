"""Serving protected models: sessions with a cache, batched continuously.

Flow of a step: `routes` (HTTP) -> `serving` (sessions, limits) -> `worker` (the thread that
owns a model) -> `scheduler` (which rows form the next batch) -> `engine` (the seam) ->
`local` (stock transformers on this machine) -> `attention` and `cache`.

Importing this loads neither torch nor transformers: the first session on a model does. The
hub is off for both from here on.
"""

import os

os.environ["HF_HUB_OFFLINE"] = "1"  # huggingface_hub reads it once, when first imported

from triparty.cloud.serving.serving import Serving

__all__ = ["Serving"]
