"""A wire between device and cloud on which things go wrong: a TCP proxy with a plan of faults.

It knows nothing of TLS or HTTP, as a bad network does not.
"""

from __future__ import annotations

import random
import select
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum

CHUNK_BYTES = 1 << 14


class Fault(StrEnum):
    """What happens to a piece of the stream."""

    DELAY = "delay"  # it arrives late
    DROP = "drop"  # it never arrives, and the connection is reset
    CUT = "cut"  # its first half arrives, then the connection ends
    FLIP = "flip"  # a bit of it is another one
    DUPLICATE = "duplicate"  # it arrives twice
    SWALLOW = "swallow"  # it never arrives, and nobody is told


@dataclass
class Wire:
    """A proxy on loopback.

    Attributes:
        port: where it listens.
        target: port of the cloud.
        faults: that may happen.
        share: of the pieces that something happens to.
        seed: of the plan.
        spared: pieces at the beginning of each connection that nothing happens to.
        happened: how often each did.
    """

    port: int
    target: int
    faults: tuple[Fault, ...] = ()
    share: float = 0.0
    seed: int = 0
    spared: int = 0
    happened: Counter[Fault] = field(default_factory=Counter)

    def plan(
        self, faults: tuple[Fault, ...], share: float, seed: int, *, spared: int = 0
    ) -> None:
        """What goes wrong from now on."""
        self.faults, self.share, self.happened = faults, share, Counter()
        self.spared = spared
        self.random = random.Random(seed)

    def fault(self) -> Fault | None:
        """What happens to the next piece."""
        if not self.faults or self.random.random() >= self.share:
            return None
        chosen = self.random.choice(self.faults)
        self.happened[chosen] += 1
        return chosen

    def carry(self, client: socket.socket) -> None:
        """Carries one connection until it ends."""
        with client, socket.create_connection(("127.0.0.1", self.target)) as server:
            ends, carried = {client: server, server: client}, 0
            while True:
                readable, _, _ = select.select(list(ends), [], [], 60)
                if not readable:
                    return
                for source in readable:
                    if not self._passed(source, ends[source], may_fail=carried >= self.spared):
                        return
                    carried += 1

    def _passed(self, source: socket.socket, target: socket.socket, *, may_fail: bool) -> bool:
        try:
            piece = source.recv(CHUNK_BYTES)
            fault = self.fault() if piece and may_fail else None
            if not piece or fault is Fault.DROP:
                return False
            if fault is Fault.SWALLOW:
                return True
            if fault is Fault.CUT:
                target.sendall(piece[: len(piece) // 2])
                return False
            if fault is Fault.DELAY:
                time.sleep(self.random.uniform(0, 0.2))
            if fault is Fault.FLIP:
                at = self.random.randrange(len(piece))
                piece = piece[:at] + bytes([piece[at] ^ 1]) + piece[at + 1 :]
            target.sendall(piece * 2 if fault is Fault.DUPLICATE else piece)
        except OSError:
            return False
        return True


@contextmanager
def wire_to(target: int) -> Iterator[Wire]:
    """A wire to a port of this machine."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        wire = Wire(listener.getsockname()[1], target)
        wire.plan((), 0, 0)
        has_ended = threading.Event()

        def accept() -> None:
            while not has_ended.is_set():
                if select.select([listener], [], [], 0.2)[0]:
                    client, _ = listener.accept()
                    threading.Thread(target=_quietly, args=(wire, client), daemon=True).start()

        accepting = threading.Thread(target=accept, daemon=True)
        accepting.start()
        try:
            yield wire
        finally:
            has_ended.set()
            accepting.join()


def _quietly(wire: Wire, client: socket.socket) -> None:
    try:
        wire.carry(client)
    except OSError:
        return
