"""Who may speak to the endpoint: checked on the headers, before anything else is read.

Plaintext prompts arrive here, so this is where a web page that somebody visits would attack:

* A page of another site sends its `Origin` (every browser does, with what is no plain
  navigation): refused unless allowed by name.
* A page whose name is rebound to this machine has no foreign origin, but sends its own name as
  `Host`: refused, because only this machine's names are answered.
* A form or a script of another site can send a body without asking first only as plain text
  or a form: refused, because only JSON is read.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from triparty.common.hosts import OwnNames, host_of
from triparty.device.endpoint.failures import Failure


@dataclass(frozen=True)
class Admission:
    """Who may speak.

    Attributes:
        hosts: names of this machine, beside those of loopback.
        any_address: whether an IP address as `Host` is enough, as when all interfaces listen;
            a name that is rebound is none.
        origins: of the web pages that may ask, as `https://chat.example`.
        key: what every request has to bring as a bearer token; None asks for none.
    """

    hosts: frozenset[str] = frozenset()
    any_address: bool = False
    origins: frozenset[str] = frozenset()
    key: str | None = None

    def refusal(self, method: str, headers: Headers) -> Failure | None:
        """Why a request is not answered; None if it is."""
        names = OwnNames(self.hosts, self.any_address)
        host = host_of(headers.getlist("host"))
        if host is None or not names.include(host):
            return Failure(
                403,
                f"this endpoint is not called {host!r}: name it with --allow-host if it is"
                if host
                else "a request names one host",
                code="host_not_allowed",
            )
        origin = headers.get("origin")
        if origin is not None and origin not in self.origins:
            return Failure(
                403,
                f"pages of {origin[:200]!r} may not ask: allow them with --allow-origin",
                code="origin_not_allowed",
            )
        if method == "OPTIONS":  # a browser asks first, and cannot bring a key
            return None
        if self.key is not None and not self._has_key(headers):
            return Failure(401, "the API key is missing or wrong", code="invalid_api_key")
        if method == "POST" and _media_type(headers) != "application/json":
            return Failure(
                415,
                f"expected Content-Type application/json, got {_media_type(headers)[:100]!r}",
                code="unsupported_media_type",
            )
        return None

    def _has_key(self, headers: Headers) -> bool:
        scheme, _, given = headers.get("authorization", "").partition(" ")
        expected = (self.key or "").encode()
        return scheme.lower() == "bearer" and hmac.compare_digest(
            given.strip().encode(), expected
        )


class Guard:
    """Passes on the requests of those who may speak."""

    def __init__(self, app: ASGIApp, admission: Admission) -> None:
        """Guards an application."""
        self._app, self._admission = app, admission

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        if scope["type"] == "http":
            refusal = self._admission.refusal(scope["method"], Headers(scope=scope))
            if refusal is not None:
                await refusal.response()(scope, receive, send)
                return
        await self._app(scope, receive, send)


def _media_type(headers: Headers) -> str:
    return headers.get("content-type", "").partition(";")[0].strip().lower()
