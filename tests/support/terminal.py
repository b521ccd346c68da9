"""A command on a terminal of its own (a pty), typed at and read from as somebody would."""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LIMIT_S, AGAIN_S = 120, 3
CTRL_C, CTRL_D = b"\x03", b"\x04"


class Terminal:
    """What is on the screen, and a keyboard."""

    def __init__(self, master: int, process: subprocess.Popen[bytes]) -> None:
        self._master, self.process = master, process
        self.shown = ""
        self._seen = 0

    def type(self, text: str | bytes) -> None:
        os.write(self._master, text if isinstance(text, bytes) else text.encode() + b"\n")

    def until(self, pattern: str, *, again: bytes = b"") -> str:
        """What is shown from where the last call ended to the end of the pattern.

        Args:
            pattern: a regular expression.
            again: a key pressed until the pattern shows: Python loses a Ctrl-C that comes while
                readline handles the character before.
        """
        end = time.monotonic() + LIMIT_S
        pressed = 0.0
        while not (found := re.compile(pattern).search(self.shown, self._seen)):
            assert time.monotonic() < end, f"{pattern!r} is not in {self.shown[self._seen :]!r}"
            if again and time.monotonic() - pressed > AGAIN_S:
                self.type(again)
                pressed = time.monotonic()
            if select.select([self._master], [], [], 1)[0]:
                try:
                    data = os.read(self._master, 1 << 16)
                except OSError:  # the other side closed it
                    data = b""
                assert data, f"it ended: {self.shown[self._seen :]!r}"
                self.shown += data.decode("utf-8", "replace").replace("\r\n", "\n")
        start, self._seen = self._seen, found.end()
        return self.shown[start : self._seen]


@contextmanager
def on_a_terminal(*words: str | Path, **environment: str) -> Iterator[Terminal]:
    """Runs a triparty command on a terminal; it must end by itself."""
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "triparty.common", *map(str, words)],
        stdin=slave,
        stdout=slave,
        stderr=slave,
        start_new_session=True,
        preexec_fn=_take_terminal,
        env=os.environ | {"TERM": "dumb"} | environment,
    )
    os.close(slave)
    try:
        yield Terminal(master, process)
        assert process.wait(timeout=LIMIT_S) == 0
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        os.close(master)


def _take_terminal() -> None:
    """Makes the terminal the controlling one, so that Ctrl-C is a signal."""
    import fcntl
    import termios

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
