"""The real cloud application behind an httpx transport, and somebody on the wire.

Requests reach the application through its ASGI interface. A fault sits between: it sees the
request, may pass it on, and answers what it likes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import anyio.from_thread
import httpx

from triparty.cloud.app import create_app
from triparty.cloud.initialise import initialise
from triparty.cloud.settings import load_settings
from triparty.common.connection import Connection

URL = "https://cloud.test"
Forward = Callable[[httpx.Request], httpx.Response]
Fault = Callable[[httpx.Request, Forward], httpx.Response]
Change = Callable[[dict[str, Any]], object]


class CloudOnWire(httpx.BaseTransport):
    """A running cloud in a folder, with a clock; a context manager."""

    def __init__(self, data: Path, *, now: datetime) -> None:
        self.now = now
        self.operator_token = initialise(data, url=URL, now=now).token
        self.requests: list[str] = []
        self._app = create_app(load_settings(data), clock=lambda: self.now)
        self._fault: Fault | None = None

    def __enter__(self) -> CloudOnWire:
        self._portals = anyio.from_thread.start_blocking_portal()
        self._portal = self._portals.__enter__()
        lifespan = self._app.router.lifespan_context(self._app)
        self._lifespan = self._portal.wrap_async_context_manager(lifespan)
        self._lifespan.__enter__()
        self._asgi = httpx.AsyncClient(transport=httpx.ASGITransport(self._app), base_url=URL)
        return self

    def __exit__(self, *_: object) -> None:
        self._portal.call(self._asgi.aclose)
        self._lifespan.__exit__(None, None, None)
        self._portals.__exit__(None, None, None)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        request.read()
        self.requests.append(f"{request.method} {request.url.path}")
        if self._fault is not None:
            return self._fault(request, self._forward)
        return self._forward(request)

    def _forward(self, request: httpx.Request) -> httpx.Response:
        async def send() -> httpx.Response:
            return await self._asgi.request(
                request.method,
                request.url.raw_path.decode(),
                headers=request.headers,
                content=request.content,
            )

        answer = self._portal.call(send)
        return httpx.Response(
            answer.status_code, headers=answer.headers, content=answer.content
        )

    @contextmanager
    def fault(self, fault: Fault) -> Iterator[None]:
        """While the block runs, the fault is on the wire."""
        self._fault = fault
        try:
            yield
        finally:
            self._fault = None

    def connection(self, url: str = URL, **options: Any) -> Connection:
        """Takes the place of `Connection` in the code under test."""
        return Connection(url, transport=self, sleep=lambda _: None, **options)


def answering(path: str, answer: Callable[[], httpx.Response], *, method: str = "GET") -> Fault:
    """Answers requests whose path begins so, instead of the cloud."""

    def fault(request: httpx.Request, forward: Forward) -> httpx.Response:
        if request.method == method and request.url.path.startswith(path):
            return answer()
        return forward(request)

    return fault


def altering(path: str, change: Change, *, method: str = "GET") -> Fault:
    """Lets the cloud answer, and changes its document on the way back."""

    def fault(request: httpx.Request, forward: Forward) -> httpx.Response:
        answer = forward(request)
        if request.method != method or request.url.path != path:
            return answer
        assert answer.is_success, answer.text
        document = json.loads(answer.content)
        change(document)
        return httpx.Response(answer.status_code, json=document)

    return fault


def cutting(path: str, *, method: str = "GET", late: bool = False) -> Fault:
    """Breaks the connection, before the request reaches the cloud or after (`late`)."""

    def fault(request: httpx.Request, forward: Forward) -> httpx.Response:
        if request.method == method and request.url.path.startswith(path):
            if late:
                forward(request)
            raise httpx.ReadError("cut")
        return forward(request)

    return fault
