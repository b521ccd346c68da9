"""The headers of every answer of a page: what a browser may do with it."""

from __future__ import annotations

import logging
from typing import Final

from starlette.datastructures import MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

CONTENT_POLICY: Final = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "media-src 'self'",
        "connect-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)
HEADERS: Final = {
    "Content-Security-Policy": CONTENT_POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",  # with none at all, forms have no origin either
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}
_YEAR_S: Final = 31_536_000
_log = logging.getLogger(__name__)


class Hardened:
    """Adds the headers to every answer, also to that about a failure of the page itself.

    What is no asset is kept by no cache.
    """

    def __init__(self, app: ASGIApp, *, is_secure: bool) -> None:
        """Wraps `app`.

        Args:
            app: the application.
            is_secure: whether it is reached by TLS alone.
        """
        self._app, self._is_secure = app, is_secure

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        has_begun = False

        async def hardened_send(message: Message) -> None:
            nonlocal has_begun
            if message["type"] == "http.response.start":
                has_begun = True
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
                headers.setdefault("Cache-Control", "no-store")
                if self._is_secure:
                    headers["Strict-Transport-Security"] = f"max-age={_YEAR_S}"
            await send(message)

        try:
            await self._app(scope, receive, hardened_send)
        except Exception:  # the outermost edge
            if has_begun:
                raise  # only a cut connection tells
            _log.exception("a page failed")
            failed = PlainTextResponse("This page failed; the log says why.", 500)
            await failed(scope, receive, hardened_send)
