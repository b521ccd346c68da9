"""Programs of others that run beside ours: started in a group, ended as a group."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from triparty.common.errors import StateError


@dataclass(frozen=True)
class Program:
    """A program that runs, with what it started.

    Attributes:
        process: its own process.
        log: what it prints.
    """

    process: subprocess.Popen[bytes]
    log: Path

    @classmethod
    def start(
        cls, command: Sequence[str], *, environment: Mapping[str, str], log: Path
    ) -> Self:
        """Starts a program of this Python's environment in a group of its own.

        Args:
            command: name of the program and its arguments.
            environment: added to this process's.
            log: gets its output, after what is there.

        Raises:
            StateError: it is not installed.
        """
        folder = Path(sys.executable).parent
        path = f"{folder}{os.pathsep}{os.environ.get('PATH', '')}"
        try:
            with log.open("ab") as stream:
                process = subprocess.Popen(
                    [str(folder / command[0]), *command[1:]],
                    env={**os.environ, **environment, "PATH": path},
                    stdin=subprocess.DEVNULL,
                    stdout=stream,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
        except FileNotFoundError as error:
            raise StateError(
                f"'{command[0]}' is not installed: pip install 'triparty[federation]'"
            ) from error
        return cls(process, log)

    def is_running(self) -> bool:
        """Whether its own process is."""
        return self.process.poll() is None

    def tail(self, lines: int = 5) -> str:
        """The end of what it printed, for a message."""
        try:
            text = self.log.read_text(encoding="utf-8", errors="replace")
        except OSError:
            return ""
        return " / ".join(line.strip() for line in text.splitlines()[-lines:] if line.strip())

    def stop(self, *, within_s: float = 5.0) -> None:
        """Ends it and all that it started."""
        with suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(within_s)
        self.kill()

    def kill(self) -> None:
        """Ends the group at once."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
