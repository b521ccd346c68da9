"""Gives every packet a stamp and a time, also where the stream gives none.

The first packet of an RTSP stream has no stamp, raw H.264 has none at all, a camera's clock may
jump, a looped file begins anew. What comes out is a stamp that is unique between two entries,
by which a decoded frame finds its packet, and seconds that go on over reconnects.
"""

from __future__ import annotations

JUMP_S = 10.0
"""A larger step between stamps is a clock that was set, not time that passed."""
NOMINAL_S = 0.04
"""Between packets of a stream that has never said how far they are apart."""
USUAL_STEPS_S = (1e-4, 2.0)
"""Steps between packets from which the usual one is learnt."""


class Timeline:
    """The stamps of one connection.

    Args:
        tick_s: length of a tick of the stream's stamps, in seconds.
        begin_s: time of the first packet.
    """

    def __init__(self, tick_s: float, begin_s: float) -> None:
        """Nothing seen."""
        self._tick_s = tick_s
        self._begin_s = begin_s
        self._origin: int | None = None
        self._last: int | None = None
        self._step = max(1, round(NOMINAL_S / tick_s))
        self._seen: set[int] = set()
        self._guessed = 0
        self._stamped = False
        self.jumps = 0
        self.latest_s = begin_s

    @property
    def step_s(self) -> float:
        """The usual time between two packets."""
        return self._step * self._tick_s

    def place(self, pts: int | None, dts: int | None, *, entry: bool) -> tuple[int, float]:
        """The stamp of a packet, unique since the last entry, and its time in seconds.

        Args:
            pts: presentation stamp, if the stream gives one.
            dts: decoding stamp, if the stream gives one.
            entry: whether the packet may begin a group of pictures.
        """
        stamp = pts if pts is not None else dts
        if stamp is None:
            stamp = 0 if self._last is None else self._last + self._step
            self._guessed += 1
        elif self._guessed and not self._stamped:
            # Only now it shows where the guessed ones stood: just before, in decode order.
            self._origin = (stamp if dts is None else dts) - self._guessed * self._step
        elif self._last is not None:
            self._measure(stamp - self._last, stamp)
        self._stamped = self._stamped or pts is not None or dts is not None
        if self._origin is None:
            self._origin = stamp
        self._last = stamp
        if entry:
            self._seen.clear()
        while stamp in self._seen:
            stamp += 1
        self._seen.add(stamp)
        time = self._begin_s + (stamp - self._origin) * self._tick_s
        self.latest_s = max(self.latest_s, time)
        return stamp, time

    def _measure(self, step: int, stamp: int) -> None:
        seconds = abs(step) * self._tick_s
        if seconds > JUMP_S and self._origin is not None:
            # Time goes on by one usual step; the stamp stays, frames are found by it.
            self.jumps += 1
            passed = round((self.latest_s - self._begin_s) / self._tick_s) + self._step
            self._origin = stamp - passed
        elif USUAL_STEPS_S[0] <= seconds <= USUAL_STEPS_S[1] and step > 0:
            self._step = step
