"""`cloud serve`: the application on a socket, with TLS, until it is told to stop."""

from __future__ import annotations

import asyncio
import fcntl
import json
import logging
import resource
import signal
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, TextIO

import uvicorn
from fastapi import FastAPI
from uvicorn.server import HANDLED_SIGNALS

from triparty.cloud.app import check_engine, create_app
from triparty.cloud.claim import claimed
from triparty.cloud.connections import ConnectionLimits, Connections, Listener
from triparty.cloud.initialise import url_of
from triparty.cloud.settings import CloudSettings
from triparty.cloud.tls import read_pin
from triparty.common.errors import SettingsError, StateError
from triparty.common.files import write_private

RUNNING_FILE = "serving.json"
LOCK_FILE = ".lock"
LOCK_ATTEMPTS = 5
CUT_S = 5
"""Seconds that connections have to end after draining."""
OWN_FILES = 256
"""Open files beside connections: the database, blobs, models."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Ready:
    """A cloud that accepts connections."""

    url: str
    pin: str | None


@dataclass(frozen=True)
class Running:
    """What the operator's commands need of a server on this machine; DATA/serving.json.

    Attributes:
        url: where it listens.
        database: its SQLAlchemy URL.
        blobs: where its blobs are, if not in the folder.
        certificate: its certificate file; None without TLS.
    """

    url: str
    database: str = field(repr=False)
    blobs: str | None
    certificate: str | None

    def save(self, file: Path) -> None:
        """Writes it for `find_running`, mode 0600: the database's URL may hold a password."""
        write_private(file, json.dumps(asdict(self)).encode())


class _Server(uvicorn.Server):
    """A uvicorn with a listener of ours, that drains, and says when its socket accepts."""

    def __init__(
        self,
        config: uvicorn.Config,
        app: FastAPI,
        listener: socket.socket,
        on_ready: Callable[[], None],
    ) -> None:
        super().__init__(config)
        self._app, self._socket, self._on_ready = app, listener, on_ready
        self._listener: Listener | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=[])
        if self.should_exit:
            return
        settings: CloudSettings = self._app.state.settings
        limits = ConnectionLimits(
            in_all=settings.max_connections,
            per_address=settings.max_connections_per_address,
            header_s=settings.header_timeout_s,
            answer_s=settings.answer_timeout_s,
        )
        connections = Connections(limits, count=self._app.state.metrics.connection_closed)
        self._app.state.metrics.watch_connections(lambda: len(connections))
        self._listener = Listener(
            self._socket, self._protocol, connections, limits, tls=self.config.ssl
        )
        self._listener.start()
        self._on_ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Finishes what runs; then ends the connections and the application."""
        state = self._app.state
        if self._listener is not None:
            await self._listener.close()
        state.drain.begin()
        _log.info("draining", extra={"count": state.drain.under_way})
        if not await state.drain.finished(state.settings.drain_s):
            _log.warning("cut off after draining", extra={"count": state.drain.under_way})
            await state.serving.stop()  # steps and streams end with a problem document
        await super().shutdown(sockets=[])

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Drains at the first signal; the second one ends the process at once."""
        super().handle_exit(sig, frame)
        for each in HANDLED_SIGNALS:
            signal.signal(each, signal.SIG_DFL)

    def _protocol(self) -> asyncio.Protocol:
        """What uvicorn's own listener makes for each connection."""
        make: Any = self.config.http_protocol_class
        protocol: asyncio.Protocol = make(
            config=self.config,
            server_state=self.server_state,
            app_state=self.lifespan.state,
        )
        return protocol


def check_exposure(settings: CloudSettings, *, allow_insecure: bool) -> None:
    """Refuses to put tokens and rows on a network in the clear.

    Raises:
        SettingsError: an address that others can reach, and no certificate.
    """
    if settings.is_loopback or settings.certificate_files:
        return
    if not allow_insecure:
        raise SettingsError(
            f"{settings.host} is not loopback and there is no certificate: run 'cloud init "
            "--self-signed', give --cert and --key, or accept with --insecure-no-tls that "
            "everyone on the network can read and use the tokens and rows"
        )
    _log.warning(
        "no TLS: everyone on the network path can read tokens, rows and replies, act as any "
        "principal, and change answers"
    )


def serve(
    settings: CloudSettings, *, allow_insecure: bool, announce: Callable[[Ready], None]
) -> None:
    """Serves until SIGTERM or SIGINT, then finishes the requests under way.

    A second signal ends the process at once.

    Args:
        settings: from `load_settings`.
        allow_insecure: `--insecure-no-tls`.
        announce: called once, when the socket accepts connections.

    Raises:
        SettingsError: settings that cannot be served.
        StateError: the address is taken, or another cloud serves this folder or database.
    """
    check_engine(settings)
    check_exposure(settings, allow_insecure=allow_insecure)
    files = settings.certificate_files
    pin = read_pin(files[0]) if files else None
    with (
        _listening(settings) as listener,
        _only_one(settings.data),
        claimed(settings.database_url),
    ):
        port = listener.getsockname()[1]
        ready = Ready(url_of(settings.host, port, is_tls=files is not None), pin)
        running = settings.data / RUNNING_FILE

        def on_ready() -> None:
            certificate = files and str(files[0].absolute())
            Running(ready.url, settings.database_url, settings.blobs, certificate).save(running)
            announce(ready)

        allow_open_files(settings.max_connections)
        app = create_app(settings)
        server = _Server(_config(app, settings, files), app, listener, on_ready)
        try:
            with _terminated_quietly():
                server.run()
        finally:
            running.unlink(missing_ok=True)
    if not server.started:
        raise StateError("the cloud did not start; the log on stderr says why")


@contextmanager
def _terminated_quietly() -> Iterator[None]:
    """Exit code 0 after draining, although uvicorn sends itself the signal again."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda *_: None)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def allow_open_files(connections: int) -> None:
    """Raises this process's limit of open files to what its connections need.

    Raises:
        SettingsError: the system's hard limit is lower.
    """
    needed = connections + OWN_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < needed:
        raise SettingsError(
            f"max_connections {connections} needs {needed} open files, the system allows "
            f"{hard}: lower it, or raise the limit (LimitNOFILE of a systemd unit)"
        )
    if soft != resource.RLIM_INFINITY and soft < needed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))


def _config(
    app: FastAPI, settings: CloudSettings, files: tuple[Path, Path] | None
) -> uvicorn.Config:
    tls: dict[str, Any] = {}
    if files:
        tls = {"ssl_certfile": str(files[0]), "ssl_keyfile": str(files[1])}
    config = uvicorn.Config(
        app,
        log_config=None,  # ours
        access_log=False,  # ours: no paths, no addresses
        server_header=False,
        proxy_headers=False,  # nobody may claim another address
        timeout_keep_alive=settings.keep_alive_s,
        timeout_graceful_shutdown=CUT_S,
        lifespan="on",
        ws="none",
        **tls,
    )
    try:
        config.load()
    except (ssl.SSLError, OSError) as error:
        raise SettingsError(f"the certificate or its key cannot be used: {error}") from error
    if config.ssl:
        config.ssl.minimum_version = ssl.TLSVersion.TLSv1_2
    return config


@contextmanager
def _listening(settings: CloudSettings) -> Iterator[socket.socket]:
    try:
        family, _, _, _, address = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, socket.SOCK_STREAM)
    except OSError as error:
        raise SettingsError(f"cannot listen on {settings.host}: {error.strerror}") from error
    with listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(address)
        except OSError as error:
            where = f"{settings.host}:{settings.port}"
            raise StateError(f"cannot listen on {where}: {error.strerror}") from error
        yield listener


@contextmanager
def _only_one(data: Path) -> Iterator[None]:
    """Keeps a second server off the folder: blobs under way are known to one process only."""
    with (data / LOCK_FILE).open("w") as lock:
        for attempt in range(LOCK_ATTEMPTS):
            if _lock(lock):
                break
            if attempt + 1 == LOCK_ATTEMPTS:
                raise StateError(f"another 'triparty cloud serve' uses {data}")
            time.sleep(0.1)  # `find_running` holds it for a moment
        yield


def _lock(file: TextIO) -> bool:
    """Whether the lock is ours now, until the file is closed."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def find_running(data: Path) -> Running | None:
    """The server that serves this folder now; None if there is none.

    A server that was killed leaves its file, but not its lock: without the second look a
    command could send its token to whoever listens on that port now.
    """
    try:
        with (data / LOCK_FILE).open("r+") as lock:
            if _lock(lock):
                return None
        document = json.loads((data / RUNNING_FILE).read_text(encoding="utf-8"))
        return Running(**document)
    except (OSError, ValueError, TypeError):
        return None
