"""What every picture of a fleet shows, by stream and time: for the oracle and for tests."""

from __future__ import annotations

import numpy as np

from triparty.device.gate.fleet import Floats, Integers, Streams, Tables
from triparty.device.gate.states import UNKNOWN


class FleetTruth:
    """The answers of all tasks together, as one number; an `oracle.Truth`.

    Rows of the policy must be the places of the streams: nobody joins late or leaves.

    Args:
        tables: of the traces.
        streams: made of them.
    """

    def __init__(self, tables: Tables, streams: Streams) -> None:
        """Numbers the joint answers and finds how long each stays."""
        self._trace = streams.trace
        self._period = tables.period
        begin = tables.arrival[tables.base[streams.trace] + streams.offset]
        self._shift = streams.joins + streams.delay - begin
        # Traces lie one after the other on one axis, so that one search finds all frames.
        self._axis = np.concatenate([[0.0], np.cumsum(tables.period + 1.0)[:-1]])
        frames = np.flatnonzero(tables.target)
        trace = np.searchsorted(tables.base, frames, side="right") - 1
        place = self._axis[trace] + tables.time[frames]
        order = np.argsort(place, kind="stable")
        frames, trace = frames[order], trace[order]
        self._place = place[order]
        _, answer = np.unique(tables.state[frames], axis=0, return_inverse=True)
        self._answer = np.where(
            (tables.state[frames] == UNKNOWN).all(axis=1), UNKNOWN, answer.reshape(-1)
        )
        self._lasts = np.empty(len(frames))
        for number in range(len(tables.period)):
            mine = trace == number
            self._lasts[mine] = _lasts(
                self._answer[mine], tables.time[frames[mine]], float(tables.period[number])
            )

    def answer(self, stream: Integers, time: Floats) -> Integers:
        """(n,) int64 the answer; equal numbers are equal answers."""
        return self._answer[self._found(stream, time)]

    def lasts(self, stream: Integers, time: Floats) -> Floats:
        """(n,) seconds for which that answer stays."""
        return self._lasts[self._found(stream, time)]

    def _found(self, stream: Integers, time: Floats) -> Integers:
        trace = self._trace[stream]
        local = np.mod(time - self._shift[stream] + 1e-6, self._period[trace])
        place = np.searchsorted(self._place, self._axis[trace] + local, side="right") - 1
        return np.asarray(np.maximum(place, 0), dtype=np.int64)


def _lasts(answer: Integers, time: Floats, period: float) -> Floats:
    """Seconds from each frame to the next one that shows something else, around the end."""
    twice = np.concatenate([answer, answer])
    changes = np.flatnonzero(twice[1:] != twice[:-1]) + 1
    if not len(changes):
        return np.full(len(answer), period)
    following = changes[
        np.searchsorted(changes, np.arange(len(answer)), side="right").clip(
            max=len(changes) - 1
        )
    ]
    times = np.concatenate([time, time + period])
    return np.asarray(np.maximum(times[following] - time, 0.0), dtype=np.float64)
