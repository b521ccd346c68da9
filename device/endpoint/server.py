"""The endpoint on a socket of this machine, until it is told to stop."""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import dataclass

import uvicorn

from triparty.common.errors import SettingsError
from triparty.common.tls import is_loopback
from triparty.device.client import Device
from triparty.device.endpoint.answering import Answering
from triparty.device.endpoint.app import create_app
from triparty.device.endpoint.guard import Admission

CLOSING_S = 5


@dataclass(frozen=True)
class Listening:
    """Where the endpoint listens, and whom it answers.

    Attributes:
        host: address to bind.
        port: to bind; 0: any free one.
        hosts: further names of this machine.
        origins: of web pages that may ask.
        key: API key; None asks for none.
    """

    host: str = "127.0.0.1"
    port: int = 8765
    hosts: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()
    key: str | None = None

    @property
    def is_local(self) -> bool:
        """Whether only this machine reaches it."""
        return is_loopback(f"http://{self._name}")

    def url(self, port: int) -> str:
        """The base URL for clients, with the port that was bound."""
        return f"http://{self._name}:{port}/v1"

    @property
    def _name(self) -> str:
        return f"[{self.host}]" if ":" in self.host else self.host

    @property
    def admission(self) -> Admission:
        """Who may speak."""
        return Admission(
            hosts=frozenset(name.lower() for name in (self.host, *self.hosts)),
            any_address=not self.is_local,
            origins=frozenset(self.origins),
            key=self.key,
        )


def serve(
    device: Device,
    listening: Listening,
    answering: Answering,
    *,
    announce: Callable[[str], None],
) -> None:
    """Serves until SIGINT or SIGTERM.

    Args:
        device: answers.
        listening: where, and whom.
        answering: how.
        announce: is told the base URL, once connections are accepted.

    Raises:
        SettingsError: an address that cannot be bound.
    """
    app = create_app(device, listening.admission, answering)
    config = uvicorn.Config(
        app,
        http="h11",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=CLOSING_S,
    )
    server = uvicorn.Server(config)
    with _bound(listening) as listener:
        listener.listen(128)  # from now on who connects is answered
        announce(listening.url(listener.getsockname()[1]))
        try:
            server.run([listener])
        finally:
            app.state.endpoint.close()


def _bound(listening: Listening) -> socket.socket:
    try:
        family = socket.AF_INET6 if ":" in listening.host else socket.AF_INET
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((listening.host, listening.port))
    except (OSError, OverflowError) as error:
        raise SettingsError(
            f"cannot listen on {listening.host} port {listening.port}: {error}"
        ) from error
    return listener
