"""Who may hold a connection, and for how long: what uvicorn leaves to others.

A connection *waits* until the headers of a request are complete, and again after its answer.
Waiting costs nobody anything but a file, so it is cut short where files run out: a new
connection takes the place of the one that has waited longest, first among those of its own
address. One with a request under way is never cut for another.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
import time
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, cast

from triparty.common.hosts import network_of

BACKLOG = 2048
ACCEPT_PAUSE_S = 0.1
LONGEST_SWEEP_S = 1.0
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ConnectionLimits:
    """How many connections there may be, and how slow.

    Attributes:
        in_all: most at a time.
        per_address: most of one address at a time; of IPv6, of one /64 network.
        header_s: longest time for a TLS handshake, and for the headers of a request, in
            seconds.
        answer_s: longest time in which a client takes nothing of its answer, in seconds.
    """

    in_all: int
    per_address: int
    header_s: float
    answer_s: float


class Connection(asyncio.Protocol):
    """One connection: uvicorn's protocol, and what must be known to end it."""

    def __init__(
        self,
        inner: Any,
        address: str,
        *,
        clock_s: Callable[[], float],
        on_lost: Callable[[Connection], None],
    ) -> None:
        """A connection that was accepted just now.

        Args:
            inner: uvicorn's protocol; its `cycle` is the request that came last.
            address: of the client; see `network_of`.
            clock_s: seconds that never go back.
            on_lost: called when it has ended.
        """
        self.address = address
        self.used_s = clock_s()  # when its last request began
        self.opening: asyncio.Task[None] | None = None
        self._inner, self._clock_s, self._on_lost = inner, clock_s, on_lost
        self._transport: asyncio.Transport | None = None
        self._headers_since_s: float | None = None
        self._stuck: tuple[float, int] | None = None  # since when, with how many bytes

    @property
    def is_waiting(self) -> bool:
        """Whether no request is under way."""
        cycle = self._inner.cycle
        return cycle is None or bool(cycle.response_complete)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection is open; its first request is due."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are not of its class
        self._headers_since_s = self._clock_s()
        self._inner.connection_made(transport)

    def data_received(self, data: bytes) -> None:
        """Bytes of a request, or of what follows one."""
        self._inner.data_received(data)
        if not self.is_waiting:
            self.used_s, self._headers_since_s = self._clock_s(), None
        elif self._headers_since_s is None:
            self._headers_since_s = self._clock_s()

    def eof_received(self) -> bool | None:
        """The client sends no more."""
        answer: bool | None = self._inner.eof_received()
        return answer

    def pause_writing(self) -> None:
        """The client does not take what is sent."""
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        """It does again."""
        self._inner.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection has ended."""
        self._on_lost(self)
        self._inner.connection_lost(exc)

    def cut(self) -> None:
        """Ends the connection now, whatever is still to be sent."""
        if self._transport is not None:
            self._transport.abort()
        elif self.opening is not None:
            self.opening.cancel()

    def overdue(self, limits: ConnectionLimits) -> str | None:
        """Why it is to be cut now; None: it is not. To be asked again and again."""
        now = self._clock_s()
        if self._transport is None:
            return None  # the handshake has its own limit
        left = self._transport.get_write_buffer_size()
        if not left:
            self._stuck = None
        elif self._stuck is None or left != self._stuck[1]:
            self._stuck = now, left
        elif now - self._stuck[0] > limits.answer_s:
            return "slow-reader"
        since = self._headers_since_s
        if since is not None and self.is_waiting and now - since > limits.header_s:
            return "slow-headers"
        return None


class Connections:
    """All connections of a server; for the event loop's thread."""

    def __init__(self, limits: ConnectionLimits, *, count: Callable[[str], None]) -> None:
        """None yet.

        Args:
            limits: how many, how slow.
            count: told why a connection is cut or refused.
        """
        self._limits = limits
        self._count = count
        self._open: set[Connection] = set()

    def __len__(self) -> int:
        """How many there are."""
        return len(self._open)

    def admit(self, new: Connection) -> bool:
        """Takes a connection in; False if it must be refused."""
        same = [other for other in self._open if other.address == new.address]
        is_full = len(same) >= self._limits.per_address and not self._make_room(same)
        if not is_full and len(self._open) >= self._limits.in_all:
            is_full = not self._make_room(self._of_the_greediest())
        if is_full:
            self._count("refused")
            return False
        self._open.add(new)
        return True

    def discard(self, ended: Connection) -> None:
        """Forgets a connection."""
        self._open.discard(ended)

    def cut_overdue(self) -> None:
        """Ends the connections of clients that are too slow."""
        for connection in list(self._open):
            if reason := connection.overdue(self._limits):
                self._cut(connection, reason)

    def _make_room(self, candidates: Collection[Connection]) -> bool:
        """Cuts the one that has waited longest; False if none waits."""
        waiting = [connection for connection in candidates if connection.is_waiting]
        if waiting:
            self._cut(min(waiting, key=lambda connection: connection.used_s), "replaced")
        return bool(waiting)

    def _of_the_greediest(self) -> list[Connection]:
        """The connections of the address of which most wait."""
        waiting = Counter(c.address for c in self._open if c.is_waiting)
        greediest = waiting.most_common(1)
        return [c for c in self._open if greediest and c.address == greediest[0][0]]

    def _cut(self, connection: Connection, reason: str) -> None:
        self._open.discard(connection)
        self._count(reason)
        connection.cut()


class Listener:
    """Accepts connections on a socket, within limits, until it is closed."""

    def __init__(
        self,
        listener: socket.socket,
        protocol: Callable[[], asyncio.Protocol],
        connections: Connections,
        limits: ConnectionLimits,
        *,
        tls: ssl.SSLContext | None,
    ) -> None:
        """Accepts nothing yet.

        Args:
            listener: bound.
            protocol: makes uvicorn's protocol of one connection.
            connections: where they are admitted.
            limits: how slow they may be.
            tls: None: in the clear.
        """
        self._socket, self._protocol, self._tls = listener, protocol, tls
        self._connections, self._limits = connections, limits
        self._tasks: set[asyncio.Task[None]] = set()
        self._accepting: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Accepts from now on."""
        self._socket.listen(BACKLOG)
        self._socket.setblocking(False)
        self._accepting = self._spawn(self._accept())
        self._spawn(self._sweep())

    async def close(self) -> None:
        """Accepts no more; what is open stays open, and watched."""
        if self._accepting is not None:
            self._accepting.cancel()
            await asyncio.wait({self._accepting})
        self._socket.close()

    def _spawn(self, work: Any) -> asyncio.Task[None]:
        task: asyncio.Task[None] = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                accepted, address = await loop.sock_accept(self._socket)
            except OSError as error:
                _log.warning("cannot accept a connection: %s", error.strerror)
                await asyncio.sleep(ACCEPT_PAUSE_S)
                continue
            connection = Connection(
                self._protocol(),
                network_of(address[0]),
                clock_s=time.monotonic,
                on_lost=self._connections.discard,
            )
            if self._connections.admit(connection):
                connection.opening = self._spawn(self._opened(connection, accepted))
            else:
                accepted.close()

    async def _opened(self, connection: Connection, accepted: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        try:
            await loop.connect_accepted_socket(
                lambda: connection,
                accepted,
                ssl=self._tls,
                ssl_handshake_timeout=self._limits.header_s if self._tls else None,
            )
        except OSError:  # no handshake, or not in time
            self._connections.discard(connection)
        except asyncio.CancelledError:
            self._connections.discard(connection)
            raise

    async def _sweep(self) -> None:
        pause_s = min(LONGEST_SWEEP_S, self._limits.header_s / 4, self._limits.answer_s / 4)
        while True:
            await asyncio.sleep(pause_s)
            self._connections.cut_overdue()
