"""Clouds that die, from the outside: start, kill, start again, and what was acknowledged."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from triparty.common import access as access_module
from triparty.common.connection import Connection

SCRIPT = Path(__file__).with_name("crashing_cloud.py")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


class MortalCloud:
    """One cloud after another on one port, each a process of its own; a context manager."""

    def __init__(self, log: Path) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._log = log
        self._pid: int | None = None

    def __enter__(self) -> MortalCloud:
        with self._log.open("w") as log:
            self._forks = subprocess.Popen(
                [sys.executable, str(SCRIPT)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        return self

    def __exit__(self, *_: object) -> None:
        if self._pid is not None:
            self.kill()
        self._forks.stdin.close()
        self._forks.wait(30)
        self._forks.stdout.close()

    @property
    def is_running(self) -> bool:
        return self._pid is not None

    def start(self, data: Path, *, step: int | str = 0) -> None:
        """Serves a folder; dies by itself at a step: counted from 1, or the first of a name."""
        asked = {"data": str(data), "port": self.port, "step": step}
        print(json.dumps(asked), file=self._forks.stdin, flush=True)
        word, self._pid = self._said()
        assert word == "ready", self._log.read_text()

    def stop(self) -> list[str] | None:
        """Stops the cloud; the steps that it took, or None if it had died at its step."""
        with suppress(ProcessLookupError):  # it died, and was buried
            os.kill(self._pid, signal.SIGTERM)
        word, said = self._said()
        if word == "ended":
            assert said == -signal.SIGKILL, self._log.read_text()
            self._pid = None
            return None
        assert self._said() == ["ended", 0]
        self._pid = None
        return said

    def kill(self) -> None:
        """Kills the cloud where it is."""
        os.kill(self._pid, signal.SIGKILL)
        self._pid = None
        assert self._said() == ["ended", -signal.SIGKILL]

    def _said(self) -> list[Any]:
        line = self._forks.stdout.readline()
        assert line, self._log.read_text()
        return json.loads(line)


@dataclass
class Witness(httpx.BaseTransport):
    """The network, and a record of each request whose success was seen by its sender."""

    acknowledged: list[tuple[httpx.Request, int]] = field(default_factory=list)
    _network: httpx.HTTPTransport = field(default_factory=httpx.HTTPTransport)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        request.read()
        response = self._network.handle_request(request)
        try:
            content = response.read()
        finally:
            response.close()
        if response.is_success:
            self.acknowledged.append((request, response.status_code))
        return httpx.Response(response.status_code, headers=response.headers, content=content)

    def shut(self) -> None:
        self._network.close()


@contextmanager
def witnessed() -> Iterator[Witness]:
    """While the block runs, every `Access` leads over one witness."""
    witness = Witness()

    def connection(url: str, **options: Any) -> Connection:
        return Connection(url, transport=witness, sleep=lambda _: None, **options)

    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(access_module, "Connection", connection)
            yield witness
    finally:
        witness.shut()
