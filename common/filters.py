"""The files of a filter, as far as those need to know them who only pass filters on."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from triparty.common.documents import Members, read_document
from triparty.common.errors import ManifestError

FILTER_FILE: Final = "filter.json"
NETWORK_FILE: Final = "filter.onnx"
FILTER_DOCUMENT: Final = "triparty.filter"
FILTER_MEMBERS: Final = ("design", "tasks", "reuse", "training")
LIMIT_BYTES: Final = 256 << 20
_DOCUMENT_LIMIT_BYTES = 1 << 20


def is_filter(folder: Path) -> bool:
    """Whether a folder says that it is a filter."""
    return (folder / FILTER_FILE).is_file()


def read_filter_document(folder: Path) -> Members:
    """The members of a filter's document, of which nothing but their names is checked.

    Raises:
        ManifestError: it cannot be read, or is not a filter's.
        FormatVersionError: made by a newer triparty.
    """
    path = folder / FILTER_FILE
    try:
        with path.open("rb") as stream:
            payload = stream.read(_DOCUMENT_LIMIT_BYTES + 1)
    except OSError as error:
        raise ManifestError(f"cannot read {path}: {error.strerror}") from error
    if len(payload) > _DOCUMENT_LIMIT_BYTES:
        raise ManifestError(f"{path} has more than {_DOCUMENT_LIMIT_BYTES} bytes")
    return read_document(payload, FILTER_DOCUMENT, FILTER_MEMBERS)
