"""Sockets that wait no longer than a deadline, whatever the other side sends and when.

HTTP libraries bound each wait by itself: who sends a byte at a time is waited for without end.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from ssl import SSLContext
from typing import Any, Final

import httpcore

from triparty.common.deadline import Deadline

_PIECE_BYTES: Final = 256 << 10


class TimedBackend(httpcore.NetworkBackend):
    """Opens sockets whose every wait ends at the deadline.

    Args:
        deadline: by which everything has to be there; what waits then raises its error, or that
            of a wait that took too long.
    """

    def __init__(self, deadline: Deadline) -> None:
        """Opens nothing yet."""
        self._deadline, self._inner = deadline, httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        """A connected socket."""
        wait_s = shorter(timeout, self._deadline)
        stream = self._inner.connect_tcp(host, port, wait_s, local_address, socket_options)
        return TimedStream(stream, self._deadline)

    def sleep(self, seconds: float) -> None:
        """Waits before another attempt to connect."""
        self._deadline.sleep(seconds)


class TimedStream(httpcore.NetworkStream):
    """A socket, see `TimedBackend`."""

    def __init__(self, inner: httpcore.NetworkStream, deadline: Deadline) -> None:
        """Takes an open socket over."""
        self._inner, self._deadline = inner, deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Some bytes; none at the end."""
        return self._inner.read(max_bytes, shorter(timeout, self._deadline))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Sends all bytes, a piece at a time."""
        for at in range(0, len(buffer), _PIECE_BYTES):
            piece = buffer[at : at + _PIECE_BYTES]
            self._inner.write(piece, shorter(timeout, self._deadline))

    def close(self) -> None:
        """Closes the socket."""
        self._inner.close()

    def start_tls(
        self,
        ssl_context: SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.NetworkStream:
        """The socket with TLS over it."""
        wait_s = shorter(timeout, self._deadline)
        return TimedStream(
            self._inner.start_tls(ssl_context, server_hostname, wait_s), self._deadline
        )

    def get_extra_info(self, info: str) -> Any:
        """What is known of the socket."""
        return self._inner.get_extra_info(info)


def shorter(wait_s: float | None, deadline: Deadline) -> float | None:
    """A wait, or what is left of the time if that is less; None is without end.

    Raises:
        DeadlineError: nothing is left.
    """
    left_s = min(math.inf if wait_s is None else wait_s, deadline.left_s())
    return None if math.isinf(left_s) else left_s
