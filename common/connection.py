"""One HTTP connection to a cloud: bounded answers, typed errors, polite repetition.

Everything that httpx can raise becomes an `UnreachableError` or a `CertificateError` here,
every answer that is no success becomes the typed error of its problem document, and a
request that may be repeated is repeated when the cloud says when (`Retry-After`).
"""

from __future__ import annotations

import json
import ssl
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Self

import httpx

from triparty.common.clocks import time_of
from triparty.common.deadline import Deadline
from triparty.common.errors import (
    CertificateError,
    CloudError,
    TransportError,
    TripartyError,
    UnauthenticatedError,
    UnreachableError,
    from_problem,
)
from triparty.common.proxies import proxy_of
from triparty.common.timed import TimedBackend
from triparty.common.tls import check_url, client_context, is_loopback, ssl_reason

JSON_LIMIT_BYTES = 16 << 20
PROBLEM_TYPE = "application/problem+json"
ATTEMPTS = 4
LONGEST_WAIT_S = 60.0
BACKOFF_S = 0.2
CONNECT_S = 10.0
_REPEATABLE_METHODS = frozenset({"GET", "HEAD", "PUT", "DELETE"})
_BUSY = frozenset({429, 503})
# The connection was there and broke (a keep-alive connection closed by the other side, a
# cut): repeating helps. One that was never there is reported at once.
_DAMAGE = ("BAD_RECORD_MAC", "UNEXPECTED_EOF_WHILE_READING", "RECORD_LAYER_FAILURE")
_OUT_OF_TIME = (9, 10)  # X509_V_ERR_CERT_NOT_YET_VALID, X509_V_ERR_CERT_HAS_EXPIRED
_BROKEN = (httpx.ReadError, httpx.WriteError, httpx.CloseError, httpx.RemoteProtocolError)


@dataclass(frozen=True)
class Answer:
    """A complete answer of the cloud.

    Attributes:
        status: HTTP status.
        headers: case-insensitive.
        body: at most the limit that the request named.
    """

    status: int
    headers: httpx.Headers
    body: bytes

    def document(self) -> dict[str, Any]:
        """The body as a JSON object.

        Raises:
            CloudError: it is none.
        """
        try:
            parsed = json.loads(self.body)
        except (ValueError, RecursionError) as error:
            raise CloudError("the cloud's answer is not JSON") from error
        if not isinstance(parsed, dict):
            raise CloudError("the cloud's answer is not a JSON object")
        return parsed

    @property
    def retry_after_s(self) -> float | None:
        """How long the cloud asks to wait, in seconds; None if it does not say."""
        value = self.headers.get("Retry-After", "")
        return float(value) if value.isascii() and value.isdigit() else None

    @property
    def pause_s(self) -> float | None:
        """How long to wait before the request is repeated, in seconds; None: not at all."""
        return self.retry_after_s if self.status in _BUSY else None

    def error(self) -> TripartyError:
        """The typed error of an answer that is no success."""
        media_type = self.headers.get("Content-Type", "").partition(";")[0].strip()
        if media_type != PROBLEM_TYPE:
            return CloudError(
                f"the cloud answered with status {self.status} and without a problem document"
                f"{self._said()}",
                status=self.status,
            )
        problem = self.document()
        problem["detail"] = printable(str(problem.get("detail") or ""))
        for name in ("self", "message"):  # names of the exception's own parameters
            problem.pop(name, None)
        if self.retry_after_s is not None:
            problem.setdefault("retry_after_s", self.retry_after_s)
        return from_problem(self.status, problem)

    def _said(self) -> str:
        """What an answer in a form of somebody else says, where that can be found."""
        try:
            said = self.document()
        except CloudError:
            return ""
        error = said.get("error")
        text = error.get("message") if isinstance(error, dict) else said.get("detail")
        return f": {printable(text)}" if isinstance(text, str) else ""


class Connection:
    """Requests to one cloud with one token.

    Args:
        url: base URL; `http` only to this machine unless `allow_http`.
        token: bearer token; never shown.
        certificate_pem: the one certificate to trust; None for the system's authorities.
        allow_http: the invite said http.
        timeout_s: longest silence of the cloud inside one answer.
        transport: replaces the network (tests).
        sleep: waits between repetitions.
        deadline: by which every request has to be answered, with its own way to wait; None
            sets none.

    Raises:
        SettingsError: a URL that must not be used.
        UnauthenticatedError: a token that no cloud can have issued.
    """

    def __init__(
        self,
        url: str,
        *,
        token: str | None = None,
        certificate_pem: str | None = None,
        allow_http: bool = False,
        timeout_s: float = 120.0,
        transport: httpx.BaseTransport | None = None,
        sleep: Callable[[float], None] = time.sleep,
        deadline: Deadline | None = None,
    ) -> None:
        """Prepares the connection; nothing is sent yet."""
        self.url = check_url(url, allow_http=allow_http)
        self._deadline = deadline or Deadline(sleep=sleep)
        self._sleep, self._timeout_s = self._deadline.sleep, timeout_s
        self._headers = httpx.Headers(  # which do not show a token
            {
                "Accept": "*/*",
                "Accept-Encoding": "identity",
                "Connection": "keep-alive",
                "User-Agent": "triparty",
            }
        )
        if token is not None:
            if not (token.isascii() and token.isprintable()):
                raise UnauthenticatedError("the token has characters that no token has")
            self._headers["Authorization"] = f"Bearer {token}"
        self._transport = transport or _transport(self.url, certificate_pem, self._deadline)
        self._last_url = ("", httpx.URL(self.url))
        self._date: str | None = None

    @property
    def cloud_time(self) -> datetime | None:
        """What the last answer said of the cloud's time."""
        return time_of(self._date)

    def __repr__(self) -> str:
        """Names the cloud, never the token."""
        return f"{type(self).__name__}({self.url!r})"

    def __enter__(self) -> Self:
        """The connection itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Closes the connection."""
        self.close()

    def close(self) -> None:
        """Closes the connection."""
        self._transport.close()

    def request(
        self,
        method: str,
        path: str,
        *,
        accept: Collection[int] = (200,),
        body: Mapping[str, Any] | None = None,
        content: bytes | Sequence[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
        params: Mapping[str, str] | None = None,
        repeatable: bool | None = None,
        limit_bytes: int = JSON_LIMIT_BYTES,
    ) -> Answer:
        """Sends a request and reads its whole answer.

        Args:
            method: HTTP method.
            path: below the base URL.
            accept: statuses to return; any other is raised as a typed error.
            body: a JSON body.
            content: a binary body, or its parts, with their Content-Length in `headers`.
            headers: further headers.
            params: query parameters.
            repeatable: whether sending it twice is harmless; None: as the method says.
            limit_bytes: longest answer to read.

        Raises:
            TransportError: the cloud was not reached.
            DeadlineError: the answer was not there in time.
            TripartyError: what the cloud answered.
        """
        if repeatable is None:
            repeatable = method in _REPEATABLE_METHODS
        request = self._request(
            method, path, json=body, content=content, headers=headers, params=params
        )
        patience = _Patience(self._sleep, attempts=ATTEMPTS if repeatable else 1)
        while True:
            try:
                answer = self._send(request, limit_bytes)
            except UnreachableError as error:
                if not (error.extra.get("broken") and patience.wait(patience.backoff_s)):
                    raise
                continue
            if answer.status in accept:
                return answer
            if not patience.wait(answer.pause_s):
                raise answer.error()

    @contextmanager
    def stream(
        self,
        path: str,
        *,
        accept: Collection[int],
        headers: Mapping[str, str] | None = None,
        method: str = "GET",
        body: Mapping[str, Any] | None = None,
    ) -> Iterator[tuple[Answer, Iterator[bytes]]]:
        """An answer whose body is read piece by piece; `Answer.body` is empty.

        Args:
            path: below the base URL.
            accept: statuses to return; any other is raised as a typed error.
            headers: further headers.
            method: HTTP method; a request that the cloud is too busy for is repeated.
            body: a JSON body.

        Raises:
            TransportError: the cloud was not reached, or the body was cut.
            TripartyError: what the cloud answered.
        """
        request = self._request(method, path, json=body, headers=headers)
        patience = _Patience(self._sleep, attempts=ATTEMPTS)
        with self._translated():
            response = self._opened(request)
            try:
                while response.status_code not in accept:
                    said = self._read(response, JSON_LIMIT_BYTES)
                    answer = Answer(response.status_code, response.headers, said)
                    if not patience.wait(answer.pause_s):
                        raise answer.error()
                    response.close()
                    response = self._opened(request)
                _refuse_encoding(response)
                answer = Answer(response.status_code, response.headers, b"")
                yield answer, self._chunks(response)
            finally:
                response.close()

    def _send(self, request: httpx.Request, limit_bytes: int) -> Answer:
        with self._translated():
            response = self._opened(request)
            try:
                body = self._read(response, limit_bytes)
                return Answer(response.status_code, response.headers, body)
            finally:
                response.close()

    def _request(
        self, method: str, path: str, *, headers: Mapping[str, str] | None, **rest: Any
    ) -> httpx.Request:
        """A request to be sent; the URL of the one before is not parsed again."""
        last, url = self._last_url
        if last != path:
            with translated(self.url):
                url = httpx.URL(self.url.rstrip("/") + path)
            self._last_url = path, url
        merged = self._headers.copy()
        merged.update(headers)
        return httpx.Request(method, url, headers=merged, **rest)

    def _opened(self, request: httpx.Request) -> httpx.Response:
        """The beginning of an answer; no wait for it is longer than the time left.

        The transport is asked itself: neither cookies nor redirects are wanted.
        """
        left_s = self._deadline.left_s()
        silence_s, connect_s = min(self._timeout_s, left_s), min(CONNECT_S, left_s)
        waits = {"connect": connect_s, "read": silence_s, "write": silence_s, "pool": silence_s}
        request.extensions["timeout"] = waits
        response = self._transport.handle_request(request)
        self._date = response.headers.get("Date", self._date)
        return response

    def _read(self, response: httpx.Response, limit_bytes: int) -> bytes:
        _refuse_encoding(response)
        pieces: list[bytes] = []
        held = 0
        for piece in self._chunks(response):
            held += len(piece)
            if held > limit_bytes:
                raise CloudError(f"the cloud's answer is longer than {limit_bytes} bytes")
            pieces.append(piece)
        return b"".join(pieces)

    def _chunks(self, response: httpx.Response) -> Iterator[bytes]:
        for piece in response.iter_bytes():
            self._deadline.left_s()
            yield piece

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """As `translated`; a wait that the deadline cut short ends in its error."""
        try:
            with translated(self.url):
                yield
        except UnreachableError:
            self._deadline.left_s()
            raise


def _transport(
    url: str, certificate_pem: str | None, deadline: Deadline
) -> httpx.BaseTransport:
    """The way to a cloud, on which nothing waits beyond the deadline.

    A proxy does not serve this machine.
    """
    is_here = is_loopback(url)
    transport = httpx.HTTPTransport(
        verify=client_context(certificate_pem) if url.startswith("https:") else False,
        trust_env=not is_here,
        proxy=None if is_here else proxy_of(url),
    )
    # httpx has no option for it; a test of a cloud that sends a byte at a time would notice.
    transport._pool._network_backend = TimedBackend(deadline)
    return transport


class _Patience:
    """How often one request is repeated, and how long it may wait in all."""

    def __init__(self, sleep: Callable[[float], None], *, attempts: int) -> None:
        self._sleep, self._left = sleep, attempts - 1
        self._waited_s = 0.0
        self.backoff_s = 2 * BACKOFF_S

    def wait(self, pause_s: float | None) -> bool:
        """Waits and returns True, or returns False at once if it has been enough."""
        if pause_s is None or not self._left or self._waited_s + pause_s > LONGEST_WAIT_S:
            return False
        self._sleep(pause_s)
        self._left -= 1
        self._waited_s += pause_s
        self.backoff_s *= 2
        return True


@contextmanager
def translated(url: str) -> Iterator[None]:
    """Turns every httpx error inside the block into a `TransportError`."""
    try:
        yield
    except (
        httpx.HTTPError,
        httpx.InvalidURL,
        httpx.StreamError,
        httpx.CookieConflict,
    ) as error:
        raise translate(error, url) from error


def translate(error: Exception, url: str) -> TransportError:
    """The typed error of an httpx error, most specific first.

    Args:
        error: any exception that httpx raises.
        url: the cloud's base URL, for the message.
    """
    for cause in _causes(error):
        if isinstance(cause, ssl.SSLCertVerificationError):
            if getattr(cause, "verify_code", None) in _OUT_OF_TIME:
                return CertificateError(
                    f"the certificate of {url} is not trusted ({cause.verify_message}): this "
                    f"machine's clock says {datetime.now(UTC):%Y-%m-%d %H:%M} UTC; if that is "
                    "wrong, set it, otherwise the cloud needs a new certificate"
                )
            return CertificateError(
                f"the certificate of {url} is not trusted ({cause.verify_message}): either "
                "the cloud has a new one, whose fingerprint its operator tells you (give it "
                "to 'trust --pin'), or it is not the cloud"
            )
        if isinstance(cause, ssl.SSLError) and (
            isinstance(error, _BROKEN) or _is_damage(cause)
        ):
            return UnreachableError(
                f"the connection to {url} broke: {ssl_reason(cause)}", broken=True
            )
        if isinstance(cause, ssl.SSLError):
            return CertificateError(f"no TLS connection to {url}: {ssl_reason(cause)}")
    if isinstance(error, httpx.TimeoutException):
        return UnreachableError(f"{url} did not answer in time ({type(error).__name__})")
    if isinstance(error, _BROKEN):
        return UnreachableError(f"the connection to {url} broke: {error}", broken=True)
    return UnreachableError(f"cannot reach {url}: {error}")


def _is_damage(error: ssl.SSLError) -> bool:
    """Whether TLS says, while it is set up, that the wire failed: it ended, or bits changed."""
    ended = (ssl.SSLEOFError, ssl.SSLZeroReturnError)
    return isinstance(error, ended) or ssl_reason(error).endswith(_DAMAGE)


def printable(text: str, *, limit: int = 500) -> str:
    """Text of another party without control characters, fit for a terminal."""
    return "".join(char if char.isprintable() else " " for char in text[:limit])


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _refuse_encoding(response: httpx.Response) -> None:
    # Compression is never asked for; unpacking it could outgrow any limit.
    if response.headers.get("Content-Encoding", "identity") != "identity":
        raise CloudError("the cloud's answer is compressed, which was not asked for")
