"""`Drought`: when a stream has gone so long without an entry that gating it is given up.

Gating waits for entries: where its group outgrew what is held, after a gap, and at the start.
Some streams never send another, and their headers do not say so (x265's intra refresh marks no
recovery point), and some cameras send one in minutes. They are decoded whole, until an entry
comes after all.

Laws: a stream is given up only if no entry came for the patience, and either it waits for one,
or the next packet would make it wait. So a group that is held whole is never decoded in vain,
and one that is given up when it outgrows the bound is decoded from its entry on: its frames are
exact. What waits for an entry between regular ones is not given up either.
"""

from __future__ import annotations

from triparty.device.streams.closure import Closures
from triparty.device.streams.packets import Packet

PERIODS = 2.0
"""Longest times between entries so far that a stream is trusted to be late by."""


class Drought:
    """Watches for entries of one connection.

    Args:
        patience_s: seconds of presentation time without an entry.
    """

    def __init__(self, patience_s: float) -> None:
        """Has seen no packet."""
        self._patience_s = patience_s
        self._entry: float | None = None
        self._waits_since: float | None = None
        self._longest_s = 0.0

    def add(self, packet: Packet, closures: Closures) -> str | None:
        """Why to decode the stream whole from a packet on; None if there is no reason to.

        Args:
            packet: the next one, in decode order.
            closures: of the stream, that do not know it yet.
        """
        time = packet.time
        if packet.picture.entry:
            if self._entry is not None:
                self._longest_s = max(self._longest_s, time - self._entry)
            self._entry, self._waits_since = time, None
            return None
        if closures.waiting is not None:
            return self._waiting(time)
        self._waits_since = None
        if self._entry is None or not closures.outgrown_by(packet):
            return None
        dry_s = time - self._entry
        if dry_s < self._patience_s:
            return None
        return f"no entry for {dry_s:.0f} s: its group outgrew what is held of a stream"

    def _waiting(self, time: float) -> str | None:
        if self._waits_since is None:
            self._waits_since = time
        dry_s = time - self._waits_since
        if dry_s < max(self._patience_s, PERIODS * self._longest_s):
            return None
        return f"no entry for {dry_s:.0f} s: decoding can start nowhere else"
