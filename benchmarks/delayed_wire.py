"""A wire that takes its time: a TCP proxy on loopback that holds everything back, each way."""

from __future__ import annotations

import queue
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_CHUNK_BYTES = 1 << 16


@contextmanager
def delayed(target: int, *, delay_s: float) -> Iterator[int]:
    """While the block runs, a port that leads to another one of this machine.

    Args:
        target: port of the cloud.
        delay_s: how long each piece is on its way; pieces follow one another without a gap.
    """
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept() -> None:
            with suppress(OSError):  # closed: the block has ended
                while True:
                    client, _ = listener.accept()
                    server = socket.create_connection(("127.0.0.1", target))
                    for ends in ((client, server), (server, client)):
                        for end in ends:
                            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                        _Direction(*ends, delay_s=delay_s).start()

        threading.Thread(target=accept, daemon=True).start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)


class _Direction:
    """One direction of a connection, until its source ends."""

    def __init__(self, source: socket.socket, target: socket.socket, *, delay_s: float) -> None:
        self._source, self._target, self._delay_s = source, target, delay_s
        self._travelling: queue.SimpleQueue[tuple[float, bytes]] = queue.SimpleQueue()

    def start(self) -> None:
        for act in (self._take, self._deliver):
            threading.Thread(target=act, daemon=True).start()

    def _take(self) -> None:
        piece = b"first"
        while piece:
            try:
                piece = self._source.recv(_CHUNK_BYTES)
            except OSError:
                piece = b""
            self._travelling.put((time.monotonic() + self._delay_s, piece))

    def _deliver(self) -> None:
        with suppress(OSError):
            while True:
                due, piece = self._travelling.get()
                time.sleep(max(0.0, due - time.monotonic()))
                if not piece:
                    self._target.shutdown(socket.SHUT_WR)
                    return
                self._target.sendall(piece)
