"""Flower's SuperLink for one federation: prepared, started, asked to run, ended."""

from __future__ import annotations

import json
import os
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import httpx

from triparty.common.errors import FederationError
from triparty.common.federation import APP
from triparty.common.processes import Program
from triparty.common.tls import client_context
from triparty.developer.federation.door import door, open_door
from triparty.developer.federation.federation import Federation
from triparty.developer.federation.flower import QUIET, build_app, prepare_superlink, sign_app

SERVER_APP: Final = "triparty.developer.federation.server_app:app"
CLIENT_APP: Final = "triparty.device.federation.client_app:app"
MASKED_APP: Final = "triparty.device.federation.masked_app:app"
FOLDER_VARIABLE: Final = "TRIPARTY_FEDERATION_FOLDER"
_READY_S: Final = 60.0
_LOOK_S: Final = 0.5
_ASK_S: Final = 20.0  # of silence: asking Flower takes a process and two seconds


@dataclass(frozen=True)
class Run:
    """A run of a federation.

    Attributes:
        number: at Flower.
        before: events that the journal had when it began.
    """

    number: str
    before: int


@dataclass(frozen=True)
class SuperLink:
    """A SuperLink that runs.

    Attributes:
        federation: whose it is.
        program: its process.
    """

    federation: Federation
    program: Program

    def submit(self) -> Run:
        """Begins a run.

        Raises:
            FederationError: Flower refuses.
        """
        before = len(self.federation.journal().events())
        said = self._flwr("run", APP, "federation", "--format", "json")
        return Run(str(said["run-id"]), before)

    def status(self, run: Run) -> str:
        """What Flower says of a run, such as `finished:failed`."""
        said = self._flwr("list", "federation", "--run-id", run.number, "--format", "json")
        return str(said["runs"][0]["status"])

    def wait(self, run: Run, on_event: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
        """Waits for the end of a run.

        Args:
            run: that `submit` began.
            on_event: gets each event of the journal, once.

        Returns:
            The last event: `finished` or `stopped`.

        Raises:
            FederationError: the SuperLink or the run ended otherwise.
        """
        journal, seen = self.federation.journal(), run.before
        asked = time.monotonic()
        while True:
            events = journal.events()
            for event in events[seen:]:
                asked = time.monotonic()
                on_event(event)
                if event["event"] in ("finished", "stopped"):
                    return event
            seen = len(events)
            if not self.program.is_running():
                raise FederationError(f"the SuperLink ended: {self.program.tail()}")
            if time.monotonic() - asked > _ASK_S:
                asked = time.monotonic()
                status = self.status(run)
                if status.startswith("finished") and len(journal.events()) == seen:
                    raise FederationError(
                        f"the run ended as '{status}': see {self.program.log}"
                    )
            time.sleep(_LOOK_S)

    def _flwr(self, *arguments: str) -> dict[str, Any]:
        done = subprocess.run(
            [str(Path(sys.executable).parent / "flwr"), *arguments],
            env=_environment(self.federation),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        start = done.stdout.find("{")
        with suppress(ValueError):
            said = json.loads(done.stdout[start:]) if start >= 0 else {}
            if done.returncode == 0 and isinstance(said, dict) and said.get("success"):
                return said
        raise FederationError(
            f"Flower refused '{arguments[0]}': {(done.stderr or done.stdout).strip()[-400:]}"
        )


@contextmanager
def superlink(
    federation: Federation, *, host: str, port: int, now: datetime
) -> Iterator[SuperLink]:
    """A SuperLink for as long as the block lasts, for the sites that are registered alone.

    Args:
        federation: whose it is.
        host: address at which sites reach it.
        port: of that address. The SuperLink itself listens on loopback, at another.
        now: when the app is signed.

    Raises:
        FederationError: it does not come up.
    """
    app = build_app(SERVER_APP, MASKED_APP if federation.plan().secure else CLIENT_APP)
    signed = sign_app(app, federation.signer(), signed_at=int(now.timestamp()))
    database = federation.path("superlink.db")
    prepare_superlink(database, app=app, verifications=signed, sites=federation.sites())
    inside = _free_port()
    _write_connection(federation, inside)
    program = Program.start(
        (
            "flower-superlink",
            *("--ssl-ca-certfile", str(federation.path("ca.pem"))),
            *("--ssl-certfile", str(federation.path("server.pem"))),
            *("--ssl-keyfile", str(federation.path("server.key"))),
            "--enable-supernode-auth",
            *("--isolation", "subprocess"),
            *("--host", "127.0.0.1", "--port", str(inside)),
            *("--database", str(database)),
        ),
        environment=_environment(federation),
        log=federation.path("superlink.log"),
    )
    try:
        context = client_context(None)
        context.load_verify_locations(federation.path("ca.pem"))
        _wait_until_ready(context, program, inside)
        with open_door(
            door(f"https://127.0.0.1:{inside}", context),
            host=host,
            port=port,
            certificate=federation.path("server.pem"),
            key=federation.path("server.key"),
        ):
            yield SuperLink(federation, program)
    finally:
        program.stop()


def _environment(federation: Federation) -> dict[str, str]:
    home = federation.path("flower").resolve()
    return {
        **os.environ,
        **QUIET,
        "FLWR_HOME": str(home),
        FOLDER_VARIABLE: str(federation.folder.resolve()),
    }


def _write_connection(federation: Federation, port: int) -> None:
    home = federation.path("flower")
    home.mkdir(exist_ok=True)
    (home / "config.toml").write_text(
        "[superlink]\n"
        'default = "federation"\n\n'
        "[superlink.federation]\n"
        f'address = "127.0.0.1:{port}"\n'
        f"root-certificates = {json.dumps(str(federation.path('ca.pem').resolve()))}\n",
        encoding="utf-8",
    )


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _wait_until_ready(context: ssl.SSLContext, program: Program, port: int) -> None:
    until = time.monotonic() + _READY_S
    with httpx.Client(verify=context, trust_env=False) as client:
        while time.monotonic() < until and program.is_running():
            with suppress(httpx.HTTPError):
                if client.get(f"https://127.0.0.1:{port}/health", timeout=1.0).is_success:
                    return
            time.sleep(0.1)
    raise FederationError(f"the SuperLink does not come up: {program.tail()}")
