"""The files of a filter, as far as those need to know them who only pass filters on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from triparty.common.documents import Members, read_document_file, write_document
from triparty.common.nets.design import Design, FilterKind
from triparty.common.nets.documents import design_members

FILTER_FILE: Final = "filter.json"
NETWORK_FILE: Final = "filter.onnx"
FILTER_DOCUMENT: Final = "triparty.filter"
FILTER_MEMBERS: Final = ("design", "tasks", "reuse", "training")
LIMIT_BYTES: Final = 256 << 20
PLAIN_REUSE: Final[Mapping[str, object]] = {
    "size": 1000,
    "neighbours": 10,
    "least_theta": "0.5",
    "first": 50,
}
"""How a cache decides unless its owner wants it otherwise (thesis 3.5.1)."""


def filter_document(
    design: Design,
    *,
    tasks: Sequence[Mapping[str, object]],
    training: Mapping[str, object],
    reuse: Mapping[str, object] = PLAIN_REUSE,
) -> bytes:
    """The bytes of a filter's document; fractions are decimal text.

    Args:
        design: of the network.
        tasks: `name`, `measure`, `parameters` and `calibration` of each output.
        training: `samples`, `epochs`, `seed` and `loss`.
        reuse: `size`, `neighbours`, `least_theta` and `first` of the cache.
    """
    members = {
        "design": design_members(design),
        "tasks": list(tasks),
        "reuse": dict(reuse),
        "training": dict(training),
    }
    return write_document(FILTER_DOCUMENT, members)


def unjudged_task(name: str, kind: FilterKind) -> dict[str, object]:
    """A task whose threshold nobody has set: it filters nothing."""
    return {
        "name": name,
        "measure": "as-given" if kind == "skip" else "label-changed",
        "parameters": [],
        "calibration": {
            "threshold": None,
            "target_accuracy": "0.9",
            "confidence": "0.95",
            "filter_rate": "0.0",
            "accuracy": "1.0",
            "samples": 0,
        },
    }


def is_filter(folder: Path) -> bool:
    """Whether a folder says that it is a filter."""
    return (folder / FILTER_FILE).is_file()


def read_filter_document(folder: Path) -> Members:
    """The members of a filter's document, of which nothing but their names is checked.

    Raises:
        ManifestError: it cannot be read, or is not a filter's.
        FormatVersionError: made by a newer triparty.
    """
    return read_document_file(folder / FILTER_FILE, FILTER_DOCUMENT, FILTER_MEMBERS)
