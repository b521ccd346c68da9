"""The end of a server: what runs is finished, what is new is sent elsewhere."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from starlette.types import ASGIApp, Receive, Scope, Send

from triparty.cloud.problems import problem_response
from triparty.common.errors import UnavailableError

OPERATION = frozenset({"/healthz", "/readyz", "/metrics"})
"""Paths that are answered while the cloud drains, and that it does not wait for."""


class Drain:
    """Requests under way, and whether more are taken; for the event loop's thread."""

    def __init__(self) -> None:
        """None under way; more are taken."""
        self.is_draining = False
        self.under_way = 0
        self._ended = asyncio.Event()

    def begin(self) -> None:
        """Takes no more requests from now on."""
        self.is_draining = True
        self._look()

    async def finished(self, timeout_s: float) -> bool:
        """Waits for the requests under way; False if some still are."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._ended.wait()
        except TimeoutError:
            return False
        return True

    @contextmanager
    def request(self) -> Iterator[None]:
        """A request is under way while the block runs."""
        self.under_way += 1
        try:
            yield
        finally:
            self.under_way -= 1
            self._look()

    def _look(self) -> None:
        if self.is_draining and not self.under_way:
            self._ended.set()


class Drainable:
    """Counts requests under way, and refuses new ones while the cloud drains."""

    def __init__(self, app: ASGIApp, drain: Drain) -> None:
        """Wraps `app`."""
        self._app = app
        self._drain = drain

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        if scope["type"] != "http" or scope["path"] in OPERATION:
            await self._app(scope, receive, send)
            return
        if self._drain.is_draining:
            error = UnavailableError("the cloud is draining: repeat the request")
            close = {"Connection": "close"}  # the next one finds another process
            await problem_response(error, headers=close)(scope, receive, send)
            return
        with self._drain.request():
            await self._app(scope, receive, send)
