"""One trainer's process, seen from the cloud: started, listened to, stopped, killed, buried."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_LONGEST_LINE = 64 << 10
_PASSED_ON = ("PATH", "PYTHONPATH", "HOME", "LANG", "LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES")
"""Of this process's environment: nothing that holds a setting or a token."""


@dataclass(frozen=True)
class Ended:
    """How a trainer's process ended.

    Attributes:
        said: its last word, `done`, `stopped` or `failed`; None if it died without one.
        problem: why it failed.
        signal: that killed it; None if none did.
        cpu_ms: CPU time that it used.
        error: what its standard error ended with, for the log.
    """

    said: str | None
    problem: str | None
    signal: int | None
    cpu_ms: int
    error: str


class Training:
    """A trainer's process, and the thread that listens to it.

    Args:
        folder: of the training.
        threads: that its arithmetic may use.
        on_progress: called with each line that is not the last; on the thread.
        on_end: called once; on the thread.
    """

    def __init__(
        self,
        folder: Path,
        *,
        threads: int,
        on_progress: Callable[[Mapping[str, Any]], None],
        on_end: Callable[[Ended], None],
    ) -> None:
        """Starts the process."""
        self._on_progress, self._on_end = on_progress, on_end
        environment = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
        environment |= {"OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1"}
        self._log = folder / "trainer.log"
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "triparty.cloud.jobs.trainer", str(folder)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=environment,
            )
        self._is_buried = threading.Lock()  # held while the process id is this process's
        self._thread = threading.Thread(target=self._listen, name="training", daemon=True)
        self._thread.start()

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    def stop(self) -> None:
        """Asks for a checkpoint and the end."""
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """Ends the process at once."""
        self._signal(signal.SIGKILL)

    def join(self, timeout_s: float | None = None) -> bool:
        """Waits until the process is dead and `on_end` has returned; whether they are."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _signal(self, number: int) -> None:
        with self._is_buried:
            if self._process.returncode is None:
                os.kill(self._process.pid, number)

    def _listen(self) -> None:
        last: Mapping[str, Any] = {}
        output = self._process.stdout
        while output is not None and (line := output.readline(_LONGEST_LINE)):
            try:
                told = json.loads(line)
            except ValueError:
                continue  # a library that prints
            if "end" in told:
                last = told
            elif "epoch" in told:
                self._on_progress(told)
        self._on_end(self._buried(last))

    def _buried(self, last: Mapping[str, Any]) -> Ended:
        """Waits for the process's death; nobody signals its number after that."""
        os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOWAIT)  # dead, not reaped
        with self._is_buried:
            _, status, usage = os.wait4(self._process.pid, 0)
            self._process.returncode = os.waitstatus_to_exitcode(status)
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()
        code = self._process.returncode
        return Ended(
            said=last.get("end") if code == 0 else None,
            problem=last.get("problem"),
            signal=-code if code < 0 else None,
            cpu_ms=round(1000 * (usage.ru_utime + usage.ru_stime)),
            error=_end_of(self._log),
        )


def _end_of(log: Path) -> str:
    """The last line of a file, if it is there."""
    try:
        lines = log.read_bytes()[-4096:].decode("utf-8", "replace").strip().splitlines()
    except OSError:
        return ""
    return lines[-1] if lines else ""
