"""The files of a gate, as far as those need to know them who only pass gates on."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from triparty.common.documents import Members, read_document_file

GATE_FILE: Final = "gate.json"
WEIGHTS_FILE: Final = "gate.safetensors"
GATE_DOCUMENT: Final = "triparty.gate"
GATE_MEMBERS: Final = ("network", "features", "normalisation", "tasks", "training")
LIMIT_BYTES: Final = 64 << 20


def is_gate(folder: Path) -> bool:
    """Whether a folder says that it is a gate."""
    return (folder / GATE_FILE).is_file()


def read_gate_document(folder: Path) -> Members:
    """The members of a gate's document, of which nothing but their names is checked.

    Raises:
        ManifestError: it cannot be read, or is not a gate's.
        FormatVersionError: made by a newer triparty.
    """
    return read_document_file(folder / GATE_FILE, GATE_DOCUMENT, GATE_MEMBERS)
