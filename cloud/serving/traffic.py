"""What the cloud received, for an operator who wants to see it.

With `trace` set, the rows of every accepted step, and of every text of a forward request, are
appended to one file as float32 frames (`common/wire.py`), one after another, nothing else.
`developer audit --traffic` reads it.
"""

from __future__ import annotations

import logging
import os
import threading
from pathlib import Path

from triparty.cloud.serving.engine import Rows
from triparty.common.errors import SettingsError
from triparty.common.files import PRIVATE_MODE
from triparty.common.wire import Frame, encode_frames

_log = logging.getLogger(__name__)


class Trace:
    """An append-only file of received rows, mode 0600; made if absent, never truncated."""

    def __init__(self, path: Path) -> None:
        """Opens the file.

        Raises:
            SettingsError: it cannot be opened, or is a symbolic link.
        """
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, flags, PRIVATE_MODE)
        except OSError as error:
            raise SettingsError(f"cannot open the trace {path}: {error.strerror}") from error
        self._lock = threading.Lock()
        self._file = os.fdopen(descriptor, "ab")

    def record(self, rows: Rows) -> None:
        """Appends one step's rows (T, D); a failure is logged, and the step goes on."""
        data = encode_frames(Frame.of(rows))
        with self._lock:
            if self._file.closed:
                return
            try:
                self._file.write(data)
                self._file.flush()
            except OSError:
                _log.exception("the trace could not be written")

    def close(self) -> None:
        """Closes the file."""
        with self._lock:
            self._file.close()
