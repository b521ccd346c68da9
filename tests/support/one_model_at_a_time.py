"""Models that tests make beside a cloud in the same process: transformers makes one at a time.

While it loads a model it replaces methods of its base class and functions of torch, in all
threads. The cloud's loads wait for each other; here the tests' own models wait for them too.
"""

from __future__ import annotations

from functools import wraps
from typing import Any

from transformers import PreTrainedModel

from triparty.cloud.serving.loading import LOADING


def wait_for_the_cloud() -> None:
    """Makes whatever constructs or loads a model in this process hold the cloud's lock."""
    if hasattr(PreTrainedModel.post_init, "__wrapped__"):
        return
    load, finish = PreTrainedModel.from_pretrained.__func__, PreTrainedModel.post_init

    @wraps(load)
    def from_pretrained(cls: type[PreTrainedModel], *args: Any, **options: Any) -> Any:
        with LOADING:
            return load(cls, *args, **options)

    @wraps(finish)
    def post_init(self: PreTrainedModel) -> None:
        with LOADING:
            finish(self)

    PreTrainedModel.from_pretrained = classmethod(from_pretrained)
    PreTrainedModel.post_init = post_init
