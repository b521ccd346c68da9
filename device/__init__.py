"""The device (P3): asks with keyed rows and un-keys the answers.

* `client`: `Device`, the public interface; `asynchronous`: `AsyncDevice`.
* `enroll`, `pull`: the account, and bundles that are verified before they are used.
* `inference`: conversation, generation; whole texts and images through encoders.
* `home`, `settings`, `cli`: files, configuration, commands.

It needs NumPy, `tokenizers`, httpx and cryptography; torch and transformers only for a draft
model.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from triparty.common.sampling import SamplingOptions
    from triparty.device.asynchronous import AsyncDevice
    from triparty.device.client import Device
    from triparty.device.inference.completions import StockEngine
    from triparty.device.inference.draft_model import DraftModel
    from triparty.device.inference.drafts import Draft
    from triparty.device.inference.generation import Generation
    from triparty.device.inference.options import GenerationOptions
    from triparty.device.inference.reading import Classification

__all__ = [
    "AsyncDevice",
    "Classification",
    "Device",
    "Draft",
    "DraftModel",
    "Generation",
    "GenerationOptions",
    "SamplingOptions",
    "StockEngine",
]

_MODULES = {
    "AsyncDevice": "triparty.device.asynchronous",
    "Classification": "triparty.device.inference.reading",
    "Device": "triparty.device.client",
    "Draft": "triparty.device.inference.drafts",
    "DraftModel": "triparty.device.inference.draft_model",
    "Generation": "triparty.device.inference.generation",
    "GenerationOptions": "triparty.device.inference.options",
    "SamplingOptions": "triparty.common.sampling",
    "StockEngine": "triparty.device.inference.completions",
}


def __getattr__(name: str) -> Any:
    """Loads a public name when it is used, so that `triparty device --help` is quick."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_MODULES[name]), name)
