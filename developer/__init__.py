"""The developer (P1): owns the weights, makes everything that is signed.

* `account`: `Developer`, the public interface; `cli`: the commands.
* `protect`: the compiler that re-keys a model; `verify` compares, `audit` attacks it.
* `publish`, `rotate`: protected models on the cloud, and their next key epoch.
* `invite`, `grant`: devices, and the bundles that are sealed to them.
* `home`, `enroll`, `statements`: keys, account, what is current.
* `example_model`: a small model to try things with.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from triparty.developer.account import Developer

__all__ = ["Developer"]

_MODULES = {"Developer": "account"}


def __getattr__(name: str) -> Any:
    """Loads a public name when it is used, so that `triparty developer --help` is quick."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
