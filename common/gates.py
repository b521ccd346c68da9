"""The files of a gate, as far as those need to know them who only pass gates on."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from triparty.common.documents import Members, read_document
from triparty.common.errors import ManifestError

GATE_FILE: Final = "gate.json"
WEIGHTS_FILE: Final = "gate.safetensors"
GATE_DOCUMENT: Final = "triparty.gate"
GATE_MEMBERS: Final = ("network", "features", "normalisation", "tasks", "training")
LIMIT_BYTES: Final = 64 << 20
_DOCUMENT_LIMIT_BYTES = 1 << 20


def is_gate(folder: Path) -> bool:
    """Whether a folder says that it is a gate."""
    return (folder / GATE_FILE).is_file()


def read_gate_document(folder: Path) -> Members:
    """The members of a gate's document, of which nothing but their names is checked.

    Raises:
        ManifestError: it cannot be read, or is not a gate's.
        FormatVersionError: made by a newer triparty.
    """
    path = folder / GATE_FILE
    try:
        with path.open("rb") as stream:
            payload = stream.read(_DOCUMENT_LIMIT_BYTES + 1)
    except OSError as error:
        raise ManifestError(f"cannot read {path}: {error.strerror}") from error
    if len(payload) > _DOCUMENT_LIMIT_BYTES:
        raise ManifestError(f"{path} has more than {_DOCUMENT_LIMIT_BYTES} bytes")
    return read_document(payload, GATE_DOCUMENT, GATE_MEMBERS)
