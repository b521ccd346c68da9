"""The page on a socket, in a thread of its own beside the gateway's loop."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from pathlib import Path
from typing import Any, Final

import uvicorn
from fastapi import FastAPI

from triparty.common.errors import SettingsError, StateError
from triparty.device.gateway.settings import PageSettings

START_S: Final = 10.0
CLOSING_S: Final = 2


class PageServer:
    """Answers browsers until it is told to stop.

    Args:
        app: the page.
        settings: where it listens.
        folder: of the configuration; the certificate is relative to it.

    Raises:
        SettingsError: a certificate that cannot be used.
        StateError: the address is taken.
    """

    def __init__(self, app: FastAPI, settings: PageSettings, folder: Path) -> None:
        """Starts to listen."""
        config = _config(app, settings, folder)
        self._socket = _bound(settings)
        self.url = _url(settings, self._socket.getsockname()[1])
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(
            target=self._server.run, args=([self._socket],), name="page", daemon=True
        )
        self._thread.start()
        end = time.monotonic() + START_S
        while not self._server.started and self._thread.is_alive():
            if time.monotonic() > end:
                break
            time.sleep(0.01)
        if not self._server.started:
            self.stop()
            raise StateError(f"the page cannot listen on {self.url}; the log says why")

    def stop(self) -> None:
        """Stops to listen; answers that run are cut off after a little while."""
        self._server.should_exit = True
        self._thread.join(CLOSING_S + START_S)
        self._socket.close()


def _config(app: FastAPI, settings: PageSettings, folder: Path) -> uvicorn.Config:
    tls: dict[str, Any] = {}
    if settings.certificate is not None and settings.key is not None:
        tls["ssl_certfile"] = str(folder / settings.certificate)
        tls["ssl_keyfile"] = str(folder / settings.key)
    config = uvicorn.Config(
        app,
        loop="asyncio",
        http="h11",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # nobody may claim another address
        timeout_graceful_shutdown=CLOSING_S,
        **tls,
    )
    try:
        config.load()
    except (ssl.SSLError, OSError) as error:
        raise SettingsError(
            f"the page's certificate or its key cannot be used: {error}"
        ) from error
    if config.ssl:
        config.ssl.minimum_version = ssl.TLSVersion.TLSv1_2
    return config


def _bound(settings: PageSettings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((settings.host, settings.port))
    except OSError as error:
        listener.close()
        where = f"{settings.host}:{settings.port}"
        raise StateError(f"the page cannot listen on {where}: {error.strerror}") from error
    return listener


def _url(settings: PageSettings, port: int) -> str:
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    return f"{'https' if settings.certificate else 'http'}://{host}:{port}/"
