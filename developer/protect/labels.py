"""The names of a classifier's answers: the device has them, the cloud has numbers."""

from __future__ import annotations

from typing import Any

from triparty.common.errors import UnsupportedModelError
from triparty.developer.protect.options import Options


def label_names(options: Options) -> tuple[str, ...]:
    """The names in the order of the answers; `LABEL_0`, ... where the source gives none.

    Raises:
        UnsupportedModelError: `id2label` does not name the answers 0, 1, 2, ...
    """
    named = options.document.get("id2label")
    if named is None:
        count = options.document.get("num_labels", 2)
        named = dict(enumerate(_generic(count if type(count) is int else 0)))
    try:
        by_number = {int(number): str(name) for number, name in named.items()}
    except (AttributeError, TypeError, ValueError):
        by_number = {}
    if not by_number or sorted(by_number) != list(range(len(by_number))):
        raise UnsupportedModelError(
            f"config.json: 'id2label' must name the answers 0, 1, 2, ..., got {named!r}"
        )
    return tuple(by_number[number] for number in range(len(by_number)))


def hosted_labels(count: int) -> dict[str, Any]:
    """What the cloud's `config.json` says of as many answers."""
    names = _generic(count)
    return {
        "id2label": {str(number): name for number, name in enumerate(names)},
        "label2id": {name: number for number, name in enumerate(names)},
    }


def _generic(count: int) -> list[str]:
    return [f"LABEL_{number}" for number in range(count)]
