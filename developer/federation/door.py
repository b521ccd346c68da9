"""The only way from outside to a SuperLink: Flower's Fleet API, which sites use, and no other.

A SuperLink serves its Control API on the same port, without any account: whoever reaches it may
submit an app, whose server part then runs on the developer's machine. So the SuperLink listens
on loopback, and this door forwards what sites ask, unread, under the same certificate.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
import threading
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.convertors import StringConvertor, register_url_convertor
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from triparty.common.errors import FederationError

if TYPE_CHECKING:
    from starlette.requests import Request

LIMIT_BYTES: Final = 64 << 20
_READY_S: Final = 20.0
_TIMEOUT_S: Final = 60.0
_HOP: Final = frozenset(
    {"connection", "content-length", "host", "keep-alive", "te", "trailer", "transfer-encoding"}
    | {"upgrade", "proxy-authorization", "proxy-authenticate", "content-encoding"}
    | {"accept-encoding"}
)
_log = logging.getLogger(__name__)


class _Word(StringConvertor):
    regex = "[a-z]+(?:-[a-z]+)*"


register_url_convertor("word", _Word())


def door(upstream: str, context: ssl.SSLContext) -> Starlette:
    """An application that forwards `POST /v1/fleet/NAME` and knows nothing else.

    Args:
        upstream: base URL of the SuperLink, on loopback.
        context: that knows its certificate.
    """

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with httpx.AsyncClient(
            verify=context, timeout=_TIMEOUT_S, trust_env=False
        ) as client:
            app.state.client = client
            yield

    async def forward(request: Request) -> Response:
        body = bytearray()
        async for piece in request.stream():
            body += piece
            if len(body) > LIMIT_BYTES:
                return PlainTextResponse("too large", 413)
        try:
            answer = await request.app.state.client.post(
                f"{upstream}/v1/fleet/{request.path_params['name']}",
                content=bytes(body),
                headers=_passed(request.headers),
            )
        except httpx.HTTPError as error:
            _log.warning("the SuperLink does not answer: %s", type(error).__name__)
            return PlainTextResponse("no SuperLink", 503)
        return Response(answer.content, answer.status_code, headers=_passed(answer.headers))

    return Starlette(
        routes=[Route("/v1/fleet/{name:word}", forward, methods=["POST"])], lifespan=lifespan
    )


@contextmanager
def open_door(
    application: Starlette, *, host: str, port: int, certificate: Path, key: Path
) -> Iterator[None]:
    """Serves an application over TLS in a thread, for as long as the block lasts.

    Raises:
        FederationError: the address is taken or is none of this machine.
    """
    config = uvicorn.Config(
        application,
        host=host,
        port=port,
        ssl_certfile=str(certificate),
        ssl_keyfile=str(key),
        log_config=None,
        access_log=False,
        ws="none",
        limit_concurrency=1000,
        timeout_graceful_shutdown=1,
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(
        target=_serve, args=(server,), name="federation-door", daemon=True
    )
    thread.start()
    until = time.monotonic() + _READY_S
    while not server.started:
        if not thread.is_alive() or time.monotonic() > until:
            raise FederationError(f"cannot listen at {host} port {port}: is it taken?")
        time.sleep(0.02)
    try:
        yield
    finally:
        server.should_exit = True
        thread.join(_READY_S)


def _serve(server: uvicorn.Server) -> None:
    try:
        asyncio.run(_served(server))
    except SystemExit:  # uvicorn's answer to an address that is taken
        _log.error("the door to the SuperLink did not open")


async def _served(server: uvicorn.Server) -> None:
    await server.serve()
    for connection in list(server.server_state.connections):  # sites keep theirs open
        connection.transport.abort()
    await asyncio.sleep(0)


def _passed(headers: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in headers.items() if name.lower() not in _HOP}
