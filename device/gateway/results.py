"""Where results and events go, and the simplest of these: JSON lines.

They tell what cameras saw: files are made for their owner alone.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Protocol

from triparty.common.files import PRIVATE_MODE

Document = Mapping[str, Any]


class Sink(Protocol):
    """Takes documents: results, events, states. Called from one thread."""

    def write(self, documents: Sequence[Document], now: float) -> None:
        """Takes some.

        Args:
            documents: each with `type`.
            now: seconds since 1970.

        Raises:
            OSError: it cannot be written now; later it may.
        """

    def close(self) -> None:
        """Writes what was not written yet."""


class Lines:
    """JSON lines, one document each, flushed at once.

    Args:
        path: of the file, which is appended to; None for standard output.
    """

    def __init__(self, path: Path | None) -> None:
        """Opens the file, for its owner alone."""
        self._own = path is not None
        self._stream: IO[str] = sys.stdout if path is None else _private_stream(path)

    def write(self, documents: Sequence[Document], now: float) -> None:
        """Writes lines."""
        self._stream.writelines(json.dumps(document) + "\n" for document in documents)
        self._stream.flush()

    def close(self) -> None:
        """Closes the file."""
        if self._own:
            self._stream.close()


def _private_stream(path: Path) -> IO[str]:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, PRIVATE_MODE)
    return os.fdopen(descriptor, "a", encoding="utf-8")
