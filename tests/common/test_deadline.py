"""Deadlines: no wait is longer than what is left, and what has passed is an error."""

from __future__ import annotations

import ssl

import httpx
import pytest
from scripted_cloud import URL, Cut, Script, document

from triparty.common.connection import Connection, translate
from triparty.common.deadline import Deadline
from triparty.common.errors import CertificateError, DeadlineError, UnreachableError


class Clock:
    """Time that passes when somebody says so."""

    def __init__(self) -> None:
        self.now = 100.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds

    def deadline(self, seconds: float | None) -> Deadline:
        return Deadline(seconds, clock=self, sleep=self.sleep)


def test_what_is_left_shrinks_until_nothing_is() -> None:
    clock = Clock()
    deadline = clock.deadline(10)
    clock.now += 4
    assert deadline.left_s() == 6
    deadline.sleep(2)
    with pytest.raises(DeadlineError, match="within 10 seconds"):
        deadline.sleep(60)
    assert clock.slept == [2, 4]
    with pytest.raises(DeadlineError):
        deadline.left_s()
    deadline.grace(3)
    assert deadline.left_s() == 3


def test_without_a_deadline_nothing_ends() -> None:
    clock = Clock()
    deadline = clock.deadline(None)
    deadline.sleep(10**6)
    assert deadline.left_s() == float("inf")


def test_no_request_may_wait_longer_than_what_is_left() -> None:
    clock, script = Clock(), Script(document(), document())
    connection = Connection(URL, transport=script, deadline=clock.deadline(30))
    connection.request("GET", "/a")
    clock.now += 25
    connection.request("GET", "/b")
    waits = [request.extensions["timeout"] for request in script.requests]
    assert (waits[0]["read"], waits[0]["connect"]) == (30, 10)
    assert (waits[1]["read"], waits[1]["connect"]) == (5, 5)
    clock.now += 5
    with pytest.raises(DeadlineError):
        connection.request("GET", "/c")
    assert len(script.requests) == 2


def test_a_body_that_drips_ends_at_the_deadline() -> None:
    clock = Clock()

    class Drip(httpx.SyncByteStream):
        def __iter__(self):  # type: ignore[no-untyped-def]
            while True:
                clock.now += 1
                yield b"x"

    script = Script(httpx.Response(200, stream=Drip()))
    connection = Connection(URL, transport=script, deadline=clock.deadline(30))
    with pytest.raises(DeadlineError):
        connection.request("GET", "/a")
    assert clock.now == 130


def test_repetition_does_not_go_beyond_the_deadline() -> None:
    clock = Clock()
    cuts = [httpx.Response(200, stream=Cut(b"x")) for _ in range(4)]
    connection = Connection(URL, transport=Script(*cuts), deadline=clock.deadline(0.5))
    with pytest.raises(DeadlineError):
        connection.request("GET", "/a")
    assert sum(clock.slept) == pytest.approx(0.5)


@pytest.mark.parametrize("raised", [httpx.ConnectError("x"), httpx.ReadError("x")])
@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (ssl.SSLEOFError(8, "EOF occurred in violation of protocol"), UnreachableError),
        (
            ssl.SSLZeroReturnError(6, "TLS/SSL connection has been closed (EOF)"),
            UnreachableError,
        ),
        (ssl.SSLError(1, "[SSL: DECRYPTION_FAILED_OR_BAD_RECORD_MAC] x"), UnreachableError),
        (ssl.SSLError(1, "[SSL: WRONG_VERSION_NUMBER] x"), CertificateError),
    ],
)
def test_a_damaged_wire_is_not_a_wrong_certificate(
    error: ssl.SSLError, kind: type[Exception], raised: Exception
) -> None:
    """What TLS finds wrong when it has been set up, with a certificate, is damage."""
    error.reason = str(error.args[1]).partition("] ")[0].removeprefix("[SSL: ")
    kind = UnreachableError if isinstance(raised, httpx.ReadError) else kind
    raised.__cause__ = error
    translated = translate(raised, URL)
    assert type(translated) is kind
    assert translated.extra.get("broken", False) is (kind is UnreachableError)
