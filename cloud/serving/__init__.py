"""Serving protected models: sessions with a cache, batched continuously.

Flow of a step: `routes` (HTTP) -> `serving` (sessions, limits) -> `worker` (the thread that
owns a model) -> `scheduler` (which rows form the next batch) -> `engine` (the seam) ->
`local` (stock transformers on this machine) -> `attention` and `cache`.

Importing this loads neither torch nor transformers: the first session on a model does.
"""

from triparty.cloud.serving.serving import Serving

__all__ = ["Serving"]
