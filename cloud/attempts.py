"""Requests of nobody: how often one address may fail to say who it is.

A request that is refused before anybody is known, for want of a good token or of a valid
enrolment, costs its address one attempt, and attempts come back at a steady rate. An address
without any left is refused with 429 before its body is read or the database is asked.

Many may share an address. So a token that was good lately is let through whatever its
neighbours do; how much it may send is the matter of `rates`. Only who is not known yet, or
has been away for long, waits along with them. Enrolment, where nobody is known, has attempts
of its own, so that wrong tokens do not keep new devices out.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from triparty.cloud.auth import TokenCache
from triparty.cloud.problems import problem_response
from triparty.common.buckets import Buckets
from triparty.common.errors import LimitError
from triparty.common.hosts import network_of

MINUTE_S = 60.0
_ENROLMENT = "/v1/enroll"
_PREFIX = "/v1/"
_NO_NETWORK = "unknown"
_LONGEST_NAME = 64


class Attempts:
    """Failed attempts of each network; for the event loop's thread or any other."""

    def __init__(self, per_minute: int, *, clock_s: Callable[[], float]) -> None:
        """All are left.

        Args:
            per_minute: how many, of one address, at once and in each minute.
            clock_s: seconds.
        """
        self._buckets = Buckets(per_s=per_minute / MINUTE_S, most=per_minute)
        self._clock_s = clock_s
        self._lock = threading.Lock()

    def check(self, network: str) -> None:
        """Returns only if the network has an attempt left.

        Raises:
            LimitError: it has none; `extra["retry_after_s"]` is when it has one.
        """
        with self._lock:
            wait_s = self._buckets.wait_s(self._buckets.filled(network, self._clock_s()))
        if wait_s:
            raise LimitError(
                "too many requests without a good token or invite came from this address: "
                "wait, and check the token",
                retry_after_s=math.ceil(wait_s),
            )

    def count(self, network: str) -> None:
        """Takes an attempt from the network, as far as it has one."""
        with self._lock:
            bucket = self._buckets.filled(network, self._clock_s())
            bucket.left = max(0.0, bucket.left - 1)


class Guarded:
    """Refuses requests of nobody from addresses that failed too often, and counts failures."""

    def __init__(
        self, app: ASGIApp, *, requests: Attempts, enrolments: Attempts, tokens: TokenCache
    ) -> None:
        """Wraps `app`.

        Args:
            app: the application.
            requests: what each address has left for requests without a good token.
            enrolments: and for enrolment.
            tokens: says which tokens were good lately.
        """
        self._app = app
        self._requests, self._enrolments = requests, enrolments
        self._tokens = tokens

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        attempts = self._enrolments if scope["path"] == _ENROLMENT else self._requests
        if scope["path"].startswith(_PREFIX) and not self._is_familiar(scope):
            try:
                attempts.check(_network(scope))
            except LimitError as error:
                await problem_response(error)(scope, receive, send)
                return

        async def counted_send(message: Message) -> None:
            if message["type"] == "http.response.start":
                is_nobody = "principal" not in scope.get("state", {})
                if is_nobody and 400 <= message["status"] < 500:
                    attempts.count(_network(scope))
            await send(message)

        await self._app(scope, receive, counted_send)

    def _is_familiar(self, scope: Scope) -> bool:
        kind, _, token = Headers(scope=scope).get("authorization", "").partition(" ")
        return kind.lower() == "bearer" and self._tokens.was_good(token)


def _network(scope: Scope) -> str:
    client = scope.get("client")
    return network_of(client[0])[:_LONGEST_NAME] if client else _NO_NETWORK
