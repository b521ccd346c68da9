"""Every answer that is no success is an RFC 9457 problem document."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from sqlalchemy.exc import DBAPIError
from starlette.exceptions import HTTPException as AnyHTTPException
from starlette.types import Receive, Scope, Send

from triparty.cloud.full_storage import is_storage_full, storage_full
from triparty.common.errors import (
    AuthError,
    CloudError,
    LimitError,
    NotFoundError,
    RequestError,
    TooLargeError,
    TripartyError,
    UnavailableError,
    to_problem,
)
from triparty.common.telemetry import request_id

MEDIA_TYPE = "application/problem+json"
REQUEST_HEADER = "Triparty-Request"
DEFAULT_RETRY_S = 5
_MEMBERS = {
    "type": {"type": "string"},
    "title": {"type": "string"},
    "status": {"type": "integer"},
    "detail": {"type": "string"},
}
_DOCUMENT = {"type": "object", "required": list(_MEMBERS), "properties": _MEMBERS}
PROBLEM_RESPONSES: dict[int | str, dict[str, Any]] = {
    status: {"description": text, "content": {MEDIA_TYPE: {"schema": _DOCUMENT}}}
    for status, text in (
        ("4XX", "a problem document: what is wrong with the request"),
        (503, "a problem document: not now; `Retry-After` says when"),
        (507, "a problem document: the cloud has no room"),
    )
}
"""What every route may answer, for the OpenAPI document."""
_log = logging.getLogger(__name__)


class ProblemResponse(JSONResponse):
    """A problem document; log and metrics learn its slug from the request's state."""

    media_type = MEDIA_TYPE

    def __init__(
        self, error: TripartyError, *, status: int, headers: Mapping[str, str] | None
    ) -> None:
        """The answer for an error, as `problem_response` makes it."""
        super().__init__(to_problem(error) | {"status": status}, status, headers=headers)
        self._slug = error.slug

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sends the document."""
        scope.setdefault("state", {}).setdefault("problem", self._slug)
        await super().__call__(scope, receive, send)


def problem_response(
    error: TripartyError, *, status: int | None = None, headers: Mapping[str, str] | None = None
) -> ProblemResponse:
    """The answer for an error.

    Args:
        error: what went wrong; its message goes to the client.
        status: another HTTP status than the error's own.
        headers: further headers.
    """
    status = status or error.status
    sent = dict(headers or {})
    if status == 401:
        sent.setdefault("WWW-Authenticate", "Bearer")
    if status in (429, 503):
        sent["Retry-After"] = str(error.extra.get("retry_after_s", DEFAULT_RETRY_S))
    return ProblemResponse(error, status=status, headers=sent)


def internal_problem() -> ProblemResponse:
    """The answer for a failure of the cloud itself: no internals, only where to look."""
    current = request_id.get()
    text = f"the cloud failed; its operator finds the cause in the log under request {current}"
    return problem_response(CloudError(text, request=current))


def add_handlers(app: FastAPI) -> None:
    """Turns every exception of the routes and of the framework into a problem document."""

    @app.exception_handler(TripartyError)
    async def ours(request: Request, error: TripartyError) -> ProblemResponse:
        is_internal = error.status >= 500 and not isinstance(error, UnavailableError)
        if is_internal:
            request.state.problem = error.slug  # more than the answer says
            _log.error("failed", exc_info=error, extra={"problem": error.slug})
            return internal_problem()
        return problem_response(error)

    @app.exception_handler(OSError)
    @app.exception_handler(DBAPIError)
    async def storage(request: Request, error: Exception) -> JSONResponse:
        if not is_storage_full(error):
            raise error
        _log.error("no room", exc_info=error)
        full = storage_full()
        request.state.problem = full.slug
        return problem_response(full)

    @app.exception_handler(AnyHTTPException)
    async def framework(request: Request, error: HTTPException) -> ProblemResponse:
        detail = str(error.detail)
        kinds: dict[int, TripartyError] = {
            401: AuthError(detail),
            404: NotFoundError("no such route"),
            405: RequestError(f"this route has no {request.method}"),
            413: TooLargeError(detail),
            429: LimitError(detail),
        }
        ours = kinds.get(error.status_code) or RequestError(detail)
        return problem_response(ours, status=error.status_code, headers=error.headers)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> ProblemResponse:
        first = error.errors()[0]  # its input is not repeated: it may be a secret
        where = ".".join(str(part) for part in first["loc"])
        text = f"{where}: {first['msg']}"[:300]
        plain = "".join(char if char.isprintable() else "?" for char in text)
        return problem_response(RequestError(plain), status=422)
