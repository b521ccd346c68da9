"""Nothing that a cloud sends, or does not send, keeps a request beyond its deadline."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest

from triparty.common.connection import Connection
from triparty.common.deadline import Deadline
from triparty.common.errors import DeadlineError, UnreachableError
from triparty.common.timed import shorter

DEADLINE_S, LONG_S = 1.0, 30.0
BEGINNING = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


def dripping_head(asked: socket.socket) -> None:
    """A header a byte at a time: each wait is short, all together have no end."""
    asked.sendall(BEGINNING + b"X-Long: ")
    drip(asked)


def dripping_body(asked: socket.socket) -> None:
    """The same in the body."""
    asked.sendall(BEGINNING + b"Content-Length: 1000000\r\n\r\n")
    drip(asked)


def drip(asked: socket.socket) -> None:
    end = time.monotonic() + LONG_S
    while time.monotonic() < end:
        asked.sendall(b"x")
        time.sleep(0.02)


def reading_nothing(asked: socket.socket) -> None:
    """Takes no more of what is sent."""
    time.sleep(LONG_S)


@contextmanager
def cloud(answer: Callable[[socket.socket], None]) -> Iterator[str]:
    """A cloud of one connection, which is closed at the end."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        taken: list[socket.socket] = []

        def serve() -> None:
            with suppress(OSError):
                asked, _ = server.accept()
                taken.append(asked)
                asked.recv(1000)
                answer(asked)

        threading.Thread(target=serve, daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
        for asked in taken:
            asked.close()


@pytest.mark.parametrize("answer", [dripping_head, dripping_body])
def test_a_byte_at_a_time_ends_at_the_deadline(answer: Callable[[socket.socket], None]) -> None:
    begun = time.monotonic()
    with cloud(answer) as url, Connection(url, deadline=Deadline(DEADLINE_S)) as connection:
        with pytest.raises(DeadlineError):
            connection.request("GET", "/")
        assert DEADLINE_S <= time.monotonic() - begun < LONG_S / 2


def test_what_nobody_reads_ends_at_the_deadline() -> None:
    begun, content = time.monotonic(), bytes(50 << 20)  # more than buffers of sockets hold
    with (
        cloud(reading_nothing) as url,
        Connection(url, deadline=Deadline(DEADLINE_S)) as connection,
    ):
        with pytest.raises(DeadlineError):
            connection.request("POST", "/", content=content)
        assert DEADLINE_S <= time.monotonic() - begun < LONG_S / 2


def test_without_a_deadline_a_drip_goes_on() -> None:
    """The other tests end for the deadline's sake alone."""

    def drip_for_a_while(asked: socket.socket) -> None:
        asked.sendall(BEGINNING + b"Content-Length: 100\r\n\r\n")
        for _ in range(50):
            asked.sendall(b"x")
            time.sleep(0.02)
        asked.close()

    with (
        cloud(drip_for_a_while) as url,
        Connection(url, timeout_s=5) as connection,
        pytest.raises(UnreachableError),
    ):
        connection.request("POST", "/")


def test_the_shorter_of_a_wait_and_the_time_left() -> None:
    now = [0.0]
    deadline = Deadline(10, clock=lambda: now[0])
    assert shorter(3, deadline) == 3
    assert shorter(None, deadline) == 10
    assert shorter(None, Deadline()) is None
    assert shorter(5, Deadline()) == 5
    now[0] = 10
    with pytest.raises(DeadlineError):
        shorter(3, deadline)
