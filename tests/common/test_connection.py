"""One connection to a cloud: every failure has its type, repetition is polite and bounded."""

from __future__ import annotations

import inspect
import json
import ssl
from collections.abc import Callable

import httpx
import pytest
from scripted_cloud import TOKEN, URL, Cut, Endless, Script, document, problem

from triparty.common.connection import (
    ATTEMPTS,
    JSON_LIMIT_BYTES,
    LONGEST_WAIT_S,
    PROBLEM_TYPE,
    Answer,
    Connection,
    printable,
)
from triparty.common.errors import (
    CertificateError,
    CloudError,
    LimitError,
    PositionError,
    SettingsError,
    TripartyError,
    UnauthenticatedError,
    UnavailableError,
    UnreachableError,
    by_slug,
)

REQUEST = httpx.Request("GET", URL)


def all_of_httpx() -> list[type[Exception]]:
    """Every exception class of httpx, found by looking."""
    members = vars(httpx).values()
    return [kind for kind in members if inspect.isclass(kind) and issubclass(kind, Exception)]


def instance(kind: type[Exception]) -> Exception:
    """An exception of a class of httpx, whose constructors differ."""
    if issubclass(kind, httpx.HTTPStatusError):
        return kind("no", request=REQUEST, response=httpx.Response(500, request=REQUEST))
    if issubclass(kind, httpx.StreamError) and kind is not httpx.StreamError:
        return kind()  # type: ignore[call-arg]
    return kind("no")


def answered(*answers: httpx.Response | Exception) -> Answer:
    return Script(*answers).connection().request("GET", "/")


# What httpx raises


def test_httpx_has_the_exceptions_that_these_tests_look_for() -> None:
    assert {httpx.ReadError, httpx.InvalidURL, httpx.CookieConflict} < set(all_of_httpx())


@pytest.mark.parametrize("kind", all_of_httpx(), ids=lambda kind: kind.__name__)
def test_every_exception_of_httpx_is_translated(kind: type[Exception]) -> None:
    """Also those of a later httpx: the list is not written down."""
    with pytest.raises(UnreachableError) as raised:
        answered(*[instance(kind)] * ATTEMPTS)
    assert URL in raised.value.message
    script = Script(instance(kind))
    with (
        pytest.raises(UnreachableError),
        script.connection().stream("/", headers={}, accept=(200,)),
    ):
        pass


@pytest.mark.parametrize("kind", all_of_httpx(), ids=lambda kind: kind.__name__)
def test_so_it_is_in_the_middle_of_a_body(kind: type[Exception]) -> None:
    def cut() -> httpx.Response:
        return httpx.Response(200, stream=Cut(b"{", error=instance(kind)))

    with pytest.raises(UnreachableError):
        answered(*[cut() for _ in range(ATTEMPTS)])
    with (
        pytest.raises(UnreachableError),
        Script(cut()).connection().stream("/", headers={}, accept=(200,)) as (_, pieces),
    ):
        list(pieces)


def test_a_certificate_that_is_not_trusted() -> None:
    def refused(cause: Exception) -> Exception:
        error = httpx.ConnectError("handshake")
        error.__cause__ = cause
        return error

    untrusted = ssl.SSLCertVerificationError(1, "self-signed")
    untrusted.verify_message = "self-signed certificate"
    with pytest.raises(CertificateError, match="trust --pin"):
        answered(refused(untrusted))
    with pytest.raises(CertificateError, match="no TLS"):
        answered(refused(ssl.SSLError(1, "wrong version number")))


# What the cloud answers


@pytest.mark.parametrize(("slug", "kind"), sorted(by_slug().items()), ids=lambda x: str(x)[:20])
def test_every_problem_has_its_type(slug: str, kind: type[TripartyError]) -> None:
    with pytest.raises(TripartyError) as raised:
        answered(problem(kind.status, slug, "what is wrong", position=7))
    assert type(raised.value) is kind
    assert raised.value.message == "what is wrong"
    assert raised.value.extra["position"] == 7


def test_what_a_problem_may_not_do() -> None:
    """It names no unknown class, overwrites no parameter, and sends nothing to a terminal."""
    hostile = problem(409, "position", "\x1b[2J\n" + "x" * 9999, self=1, message=2, position=3)
    with pytest.raises(PositionError) as raised:
        answered(hostile)
    assert raised.value.message.isprintable()
    assert len(raised.value.message) == 500
    assert raised.value.extra == {"position": 3}
    with pytest.raises(CloudError, match="unheard"):
        answered(problem(418, "unheard-of", "unheard"))


@pytest.mark.parametrize(
    "response",
    [
        httpx.Response(500, text="<html>oops</html>"),
        httpx.Response(302, headers={"Location": "https://elsewhere.test/"}),
        httpx.Response(404, json={"detail": "no problem document"}),
        httpx.Response(404, headers={"Content-Type": PROBLEM_TYPE}, content=b"<html>"),
        httpx.Response(404, headers={"Content-Type": PROBLEM_TYPE}, content=b"[]"),
        httpx.Response(404, headers={"Content-Type": PROBLEM_TYPE}, content=b"[" * 10**5),
        httpx.Response(204),
    ],
    ids=["html", "redirect", "json", "not-json", "list", "deep", "not-expected"],
)
def test_an_error_without_a_problem_document(response: httpx.Response) -> None:
    with pytest.raises(CloudError):
        answered(response)


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b"\xff", b"[" * 10**5, b"1" * 9999])
def test_an_answer_that_is_no_document(body: bytes) -> None:
    with pytest.raises(CloudError):
        answered(httpx.Response(200, content=body)).document()
    assert answered(httpx.Response(200, content=b'{"a":1}')).document() == {"a": 1}


def test_an_answer_is_read_to_its_limit_and_no_further() -> None:
    exact = Script(httpx.Response(200, content=b"12345678"))
    assert exact.connection().request("GET", "/", limit_bytes=8).body == b"12345678"
    longer = Script(httpx.Response(200, content=b"123456789"))
    with pytest.raises(CloudError, match="longer than 8"):
        longer.connection().request("GET", "/", limit_bytes=8)
    for status in (200, 500):
        endless = Endless()
        with pytest.raises(CloudError, match="longer"):
            answered(httpx.Response(status, stream=endless))
        assert endless.taken <= JSON_LIMIT_BYTES + (1 << 16)


def test_a_compressed_answer_is_refused_unopened() -> None:
    def packed(status: int) -> httpx.Response:
        stream = Cut(b"\x1f\x8b not gzip")
        return httpx.Response(status, headers={"Content-Encoding": "gzip"}, stream=stream)

    for status in (200, 404):
        script = Script(packed(status), packed(status))
        with pytest.raises(CloudError, match="compressed"):
            script.connection().request("GET", "/")
        assert script.requests[0].headers["Accept-Encoding"] == "identity"
        with (
            pytest.raises(CloudError, match="compressed"),
            script.connection().stream("/", headers={}, accept=(200,)),
        ):
            pass


# Repetition


@pytest.mark.parametrize(("status", "slug"), [(429, "limit"), (503, "unavailable")])
def test_a_busy_cloud_is_asked_again_when_it_says(status: int, slug: str) -> None:
    for method in ("GET", "HEAD", "PUT", "DELETE"):
        busy = problem(status, slug, retry_after="3")
        script = Script(busy, busy, document(done=True))
        assert script.connection().request(method, "/").status == 200
        assert script.slept == [3.0, 3.0]
    busy = problem(status, slug, retry_after="2")
    script = Script(busy, httpx.Response(200, content=b"all"))
    with script.connection().stream("/", headers={}, accept=(200,)) as (_, pieces):
        assert b"".join(pieces) == b"all"
    assert script.slept == [2.0]


def test_a_call_that_must_not_be_repeated_is_not() -> None:
    script = Script(problem(429, "limit", retry_after="3"))
    with pytest.raises(LimitError) as raised:
        script.connection().request("POST", "/")
    assert (raised.value.extra["retry_after_s"], script.slept) == (3.0, [])
    for error in (httpx.ReadError("cut"), httpx.RemoteProtocolError("gone")):
        broken = Script(error)
        with pytest.raises(UnreachableError):
            broken.connection().request("POST", "/")
    told = Script(problem(429, "limit", retry_after="3"), document(201))
    told.connection().request("POST", "/", repeatable=True, accept=(201,))
    untold = Script(httpx.ReadError("cut"))
    with pytest.raises(UnreachableError):
        untold.connection().request("GET", "/", repeatable=False)


def test_patience_has_an_end() -> None:
    def calls(script: Script) -> list[Callable[[], object]]:
        connection = script.connection()
        stream = connection.stream("/", headers={}, accept=(200,))
        return [lambda: connection.request("GET", "/"), stream.__enter__]

    for which in range(2):
        often = Script(*[problem(503, "unavailable", retry_after="1")] * ATTEMPTS)
        with pytest.raises(UnavailableError):
            calls(often)[which]()
        assert often.slept == [1.0] * (ATTEMPTS - 1)
        long = Script(*[problem(429, "limit", retry_after="25")] * ATTEMPTS)
        with pytest.raises(LimitError):
            calls(long)[which]()
        assert sum(long.slept) <= LONGEST_WAIT_S
        for silent in (None, "soon", "-1", "9" * 400, "³"):
            never = Script(problem(429, "limit", retry_after=silent and silent.encode()))
            with pytest.raises(LimitError):
                calls(never)[which]()
            assert never.slept == []


def test_no_other_status_is_repeated() -> None:
    for status, slug in ((404, "not-found"), (500, "cloud"), (409, "conflict")):
        with pytest.raises(TripartyError):
            answered(problem(status, slug, retry_after="1"))


def test_a_broken_connection_is_tried_again_an_absent_one_is_not() -> None:
    script = Script(httpx.ReadError("cut"), httpx.WriteError("cut"), document())
    assert script.connection().request("GET", "/").status == 200
    assert script.slept == sorted(set(script.slept))  # longer each time
    gone = Script(*[httpx.RemoteProtocolError("gone")] * ATTEMPTS)
    with pytest.raises(UnreachableError):
        gone.connection().request("GET", "/")
    assert not gone.answers
    for error in (httpx.ConnectError("refused"), httpx.ReadTimeout("silent")):
        with pytest.raises(UnreachableError):
            answered(error)


def test_a_repeated_upload_carries_its_whole_body() -> None:
    script = Script(httpx.ReadError("cut"), document(201))
    script.connection().request("PUT", "/", content=b"body", accept=(201,))
    assert [request.content for request in script.requests] == [b"body", b"body"]


# Secrets and addresses


def test_the_token_is_sent_and_never_shown() -> None:
    script = Script(problem(401, "unauthenticated"), httpx.ReadError(f"at {URL}"))
    connection = script.connection()
    assert TOKEN not in repr(connection) + str(vars(connection))
    with pytest.raises(UnauthenticatedError) as raised:
        connection.request("GET", "/")
    assert TOKEN not in repr(raised.value)
    assert script.requests[0].headers["Authorization"] == f"Bearer {TOKEN}"
    without = Script(document())
    Connection(URL, transport=without).request("GET", "/")
    assert "Authorization" not in without.requests[0].headers


@pytest.mark.parametrize("token", ["tpt_é", "tpt_\u2603", "a\nHost: evil", "a\x00", "\ud800"])
def test_a_token_that_fits_no_header(token: str) -> None:
    with pytest.raises(UnauthenticatedError) as raised:
        Connection(URL, token=token)
    assert token not in raised.value.message


def test_plain_http_goes_to_this_machine_only() -> None:
    script = Script()
    for url in ("http://127.0.0.1:1", "http://127.8.9.1", "http://localhost:1", "http://[::1]"):
        assert script.connection(url).url == url
    for url in (
        "http://cloud.test",
        "http://192.0.2.1",
        "http://127.0.0.1.cloud.test",
        "http://localhost.cloud.test",
        "http://0.0.0.0",
        "http://[2001:db8::1]",
    ):
        with pytest.raises(SettingsError, match="https"):
            script.connection(url)
        allowed = Connection(url, allow_http=True, transport=script)
        assert allowed.url == url


@pytest.mark.parametrize(
    "url",
    [
        "",
        "cloud.test",
        "ftp://cloud.test",
        "https://",
        "https://user@cloud.test",
        "https://cloud.test?a=b",
        "https://cloud.test#a",
        "https://cloud.test:0",
        "https://cloud.test:99999",
        "https://[::1",
        "https://a b",
        "https://a\nb",
        "https://\u2603.test",
        "https://a..b",
        "https://" + "a" * 70,
    ],
)
def test_what_is_no_address(url: str) -> None:
    with pytest.raises(SettingsError):
        Connection(url, transport=Script())


def test_a_slash_at_the_end_changes_nothing() -> None:
    script = Script(document())
    script.connection("https://cloud.test/base/").request("GET", "/v1/x")
    assert script.requests[0].url == "https://cloud.test/base/v1/x"


def test_a_body_is_json() -> None:
    script = Script(document(201))
    script.connection().request("POST", "/", body={"a": "ü"}, accept=(201,))
    assert json.loads(script.requests[0].content) == {"a": "ü"}


def test_printable() -> None:
    assert printable("a\x1b[31mb\r\nc\u202ed") == "a [31mb  c d"
    assert len(printable("x" * 999)) == 500
