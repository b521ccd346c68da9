"""Pages for tests, and visitors who do as browsers do: an origin, cookies, the page's word."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import httpx
from starlette.types import ASGIApp

ORIGIN = "http://127.0.0.1"


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Visitor:
    """Somebody with a browser."""

    def __init__(self, app: ASGIApp, *, origin: str = ORIGIN) -> None:
        transport = httpx.ASGITransport(app)
        self._client = httpx.AsyncClient(transport=transport, base_url=origin)
        self.cookies = self._client.cookies
        self.origin, self._root = origin, ""

    def request(self, method: str, path: str, **more: Any) -> httpx.Response:
        """A request as it is given: nothing is added but cookies."""
        return asyncio.run(self._client.request(method, path, **more))

    def get(self, path: str, **headers: str) -> httpx.Response:
        return self.request("GET", path, headers=headers)

    def post(self, path: str, form: dict[str, Any], **headers: str) -> httpx.Response:
        """A form of the page."""
        return self.request("POST", path, data=form, headers={"Origin": self.origin, **headers})

    def send(self, method: str, path: str, document: Any, **headers: str) -> httpx.Response:
        """JSON, as the page's own scripts send it."""
        sent = {"Origin": self.origin, "X-CSRF-Token": self.word(), **headers}
        return self.request(method, path, json=document, headers=sent)

    def log_in(self, secret: str, *, root: str = "") -> httpx.Response:
        self._root = root
        return self.post(f"{root}/login", {"secret": secret, "next": "/"})

    def word(self) -> str:
        """The session's word, as the page shows it to its scripts."""
        found = re.search(r'data-csrf="([^"]*)"', self.get(f"{self._root}/").text)
        assert found is not None
        return found.group(1)
