"""Errors in the form of OpenAI's API: `{"error": {"message", "type", "param", "code"}}`.

The status tells a client's library whether to try again: it does for 408, 409, 429 and from
500 on, so what repeating cannot help has another one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from starlette.responses import JSONResponse

from triparty.common.errors import (
    ArtifactError,
    AttestationError,
    AuthError,
    CloudError,
    DeadlineError,
    LimitError,
    NotFoundError,
    RequestError,
    SettingsError,
    TooLargeError,
    TransportError,
    TripartyError,
    UnavailableError,
)

INVALID, SERVER = "invalid_request_error", "api_error"

_KINDS: tuple[tuple[type[TripartyError], int, str], ...] = (
    (SettingsError, 400, INVALID),
    (RequestError, 400, INVALID),
    (TooLargeError, 400, INVALID),
    (NotFoundError, 404, INVALID),
    (LimitError, 429, "rate_limit_error"),
    # The account on the cloud, not the key of this endpoint: no 401, which is about that.
    (AuthError, 403, "permission_error"),
    (ArtifactError, 422, INVALID),
    (AttestationError, 422, INVALID),
    (DeadlineError, 504, SERVER),
    (TransportError, 502, SERVER),
    (CloudError, 502, SERVER),
    (UnavailableError, 503, SERVER),
)


@dataclass(eq=False)
class Failure(Exception):  # noqa: N818 an answer, rather than an error of the program
    """An answer that is an error.

    Attributes:
        status: HTTP status.
        message: for people.
        type: OpenAI's kind of error.
        code: for programs.
        param: the member of the request that is wrong.
        retry_after_s: when to ask again.
    """

    status: int
    message: str
    type: str = INVALID
    code: str | None = None
    param: str | None = None
    retry_after_s: float | None = None

    @classmethod
    def of(cls, error: TripartyError) -> Failure:
        """The answer to an error of the device or the cloud."""
        found = (kind for kind in _KINDS if isinstance(error, kind[0]))
        _, status, kind = next(found, (TripartyError, 500, SERVER))
        wait = error.extra.get("retry_after_s")
        seconds = float(wait) if isinstance(wait, int | float) else None
        return cls(status, error.message, kind, error.slug, retry_after_s=seconds)

    def document(self) -> dict[str, Any]:
        """The body."""
        error = {
            "message": self.message,
            "type": self.type,
            "param": self.param,
            "code": self.code,
        }
        return {"error": error}

    def response(self) -> JSONResponse:
        """The answer."""
        headers = {}
        if self.retry_after_s is not None:
            headers["Retry-After"] = str(max(1, round(self.retry_after_s)))
        if self.status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        return JSONResponse(self.document(), self.status, headers)
