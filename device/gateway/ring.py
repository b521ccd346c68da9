"""The last packets of a camera, so that a clip can begin before its event."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from triparty.device.streams.packets import Entry, Packet


class Ring:
    """Holds whole groups of packets, the oldest from an entry on; bounded in time and bytes.

    Law: what `since` gives begins with an entry, misses no packet after it, and goes back to
    the time asked for as long as the bytes allow.

    Args:
        seconds: how far back to reach.
        limit_bytes: most to hold.
    """

    def __init__(self, seconds: float, limit_bytes: int) -> None:
        """Holds nothing."""
        self._seconds = seconds
        self._limit_bytes = limit_bytes
        self._groups: deque[list[Packet]] = deque()
        self.held_bytes = 0

    def __len__(self) -> int:
        """How many packets are held."""
        return sum(map(len, self._groups))

    def reach(self, seconds: float) -> None:
        """From now on it reaches back so far."""
        self._seconds = seconds

    def clear(self) -> None:
        """Forgets all, as after a gap: only an entry begins anew."""
        self._groups.clear()
        self.held_bytes = 0

    def add(self, packet: Packet) -> None:
        """Takes in the next packet; before the first entry it is of no use."""
        if packet.picture.entry is not Entry.NONE:
            self._groups.append([])
        if not self._groups:
            return
        self._groups[-1].append(packet)
        self.held_bytes += packet.size
        while len(self._groups) > 1 and (
            self._groups[1][0].time <= packet.time - self._seconds
            or self.held_bytes > self._limit_bytes
        ):
            self._drop_oldest()
        if self.held_bytes > self._limit_bytes:
            self.clear()  # a group that is too long cannot be held from its entry on

    def since(self, time: float) -> list[Packet]:
        """The packets from the last entry at or before a time on, in decode order."""
        groups = list(self._groups)
        while len(groups) > 1 and groups[1][0].time <= time:
            del groups[0]
        return list(_decodable(packet for group in groups for packet in group))

    def _drop_oldest(self) -> None:
        self.held_bytes -= sum(packet.size for packet in self._groups.popleft())


def _decodable(packets: Iterator[Packet]) -> Iterator[Packet]:
    """Without the leading pictures of the first entry, which need what came before it."""
    entries = 0
    for packet in packets:
        entries += packet.picture.entry is not Entry.NONE
        if entries > 1 or not packet.picture.leading:
            yield packet
