"""What happens around every request: its id, its log line, its limits."""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
import time

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from triparty.cloud.metrics import Metrics
from triparty.cloud.problems import REQUEST_HEADER, internal_problem, problem_response
from triparty.cloud.settings import CloudSettings
from triparty.common.errors import RequestError, TooLargeError, TripartyError
from triparty.common.telemetry import request_id

_access = logging.getLogger("triparty.cloud.access")
_BLOB = re.compile(r"/v1/blobs/[^/]*")
_ROWS = re.compile(r"/v1/.*/(step|forward)")
CLIENT_CLOSED = 499
FRAME_HEADER_BYTES = 256  # more than those of four frames with four dims
_OPEN = re.compile(r"/v1/(enroll|invites|tokens/rotate|jobs)(/.*)?")
_SESSIONS = re.compile(r"/v1/(sessions|models)/.*")
_PAGE = re.compile(r"/operator(/.*)?")  # its forms are bounded and read by its own guard
_CLOSE = {"Connection": "close"}
SMALL_JSON_BYTES = 16 << 10
"""Largest JSON body where no large one has a meaning, also before anybody is known."""


class Observed:
    """Gives each request an id, catches what nothing else caught, writes the log, counts.

    Both name the route's template, never the path: a session's id opens it.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        """Wraps `app`; counts its requests in `metrics`."""
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        current = secrets.token_hex(8)
        before = request_id.set(current)
        seen = {"status": CLIENT_CLOSED, "bytes_in": 0, "bytes_out": 0}
        began = time.perf_counter()

        async def counted_receive() -> Message:
            message = await receive()
            seen["bytes_in"] += len(message.get("body", b""))
            return message

        async def marked_send(message: Message) -> None:
            if message["type"] == "http.response.start":
                seen["status"] = message["status"]
                MutableHeaders(scope=message)[REQUEST_HEADER] = current
            seen["bytes_out"] += len(message.get("body", b""))
            await send(message)

        try:
            await self._app(scope, counted_receive, marked_send)
        except ClientDisconnect:
            pass  # nobody is left to answer
        except Exception:  # the outermost edge
            logging.getLogger(__name__).exception("failed")
            if seen["status"] != CLIENT_CLOSED:
                raise  # the answer is half-way out: only a cut connection tells
            await internal_problem()(scope, counted_receive, marked_send)
        finally:
            duration_s = time.perf_counter() - began
            duration_ms = round(duration_s * 1000, 2)
            _access.info("request", extra=_fields(scope) | seen | {"duration_ms": duration_ms})
            self._metrics.request(
                method=scope["method"],
                route=_route(scope),
                problem=scope.get("state", {}).get("problem"),
                duration_s=duration_s,
                **seen,
            )
            request_id.reset(before)


def _route(scope: Scope) -> str | None:
    """The template of the route that a request reached; None if it reached none."""
    return getattr(scope.get("route"), "path", None)


def _fields(scope: Scope) -> dict[str, object]:
    state = scope.get("state", {})
    fields: dict[str, object] = {"method": scope["method"], "route": _route(scope)}
    if principal := state.get("principal"):
        fields |= {"principal": principal.id, "role": principal.role}
    if problem := state.get("problem"):
        fields["problem"] = problem
    return fields


class Bounded:
    """Refuses a body that is too large, announced or not, too slow, or not JSON."""

    def __init__(self, app: ASGIApp, settings: CloudSettings) -> None:
        """Wraps `app` with the limits of `settings`."""
        self._app = app
        self._settings = settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        limit = self._limit(scope)
        announced = headers.get("content-length", "0")
        refused: TripartyError | None = None
        status = None
        if not (announced.isascii() and announced.isdigit()) or int(announced) > limit:
            refused = TooLargeError(_too_large(limit))
        elif self._wants_json(scope, headers):
            refused = RequestError("expected 'Content-Type: application/json'")
            status = 415
        if refused:
            await problem_response(refused, status=status)(scope, receive, send)
            return
        await self._app(scope, self._bounded(receive, limit), send)

    def _bounded(self, receive: Receive, limit: int) -> Receive:
        taken, has_more = 0, True
        settings = self._settings
        patience_s = settings.body_timeout_s  # what waiting uses up and bytes earn

        async def bounded_receive() -> Message:
            nonlocal taken, has_more, patience_s
            began = time.monotonic()
            try:
                async with asyncio.timeout(patience_s if has_more else None):
                    message = await receive()
            except TimeoutError as error:
                raise HTTPException(408, _too_slow(settings), _CLOSE) from error
            size = len(message.get("body", b""))
            patience_s += size / settings.min_body_bytes_per_s - (time.monotonic() - began)
            patience_s = min(patience_s, settings.body_timeout_s)
            has_more = message.get("more_body", False)
            taken += size
            if taken > limit:
                raise HTTPException(TooLargeError.status, _too_large(limit))
            return message

        return bounded_receive

    def _limit(self, scope: Scope) -> int:
        if _BLOB.fullmatch(scope["path"]):
            return self._settings.max_blob_bytes
        if _ROWS.fullmatch(scope["path"]):
            return self._settings.max_body_bytes + FRAME_HEADER_BYTES
        if _OPEN.fullmatch(scope["path"]) or _SESSIONS.fullmatch(scope["path"]):
            return min(SMALL_JSON_BYTES, self._settings.max_json_bytes)
        return self._settings.max_json_bytes

    @staticmethod
    def _wants_json(scope: Scope, headers: Headers) -> bool:
        if any(kind.fullmatch(scope["path"]) for kind in (_BLOB, _ROWS, _PAGE)):
            return False
        has_body = headers.get("content-length", "0") != "0" or "transfer-encoding" in headers
        media_type = headers.get("content-type", "").partition(";")[0].strip().lower()
        return has_body and media_type != "application/json"


def _too_slow(settings: CloudSettings) -> str:
    return (
        f"the body arrived at less than {settings.min_body_bytes_per_s} bytes/s "
        f"for {settings.body_timeout_s:g} s"
    )


def _too_large(limit: int) -> str:
    return f"the body is larger than this route's limit of {limit} bytes"
