"""How often a held answer was right, over any span of frames and with a tolerance for delay."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from triparty.device.gate.states import UNKNOWN, States


class Truth:
    """The states of one task over one trace in presentation order, endlessly repeated.

    An answer held at frame `t` is *right within a tolerance* if it is the state of some frame
    shown between `time[t] - tolerance` and `time[t]`: a change may be noticed that much too
    late, and what was over again by then may be missed. Tolerance 0 asks for the frame's own
    state. Frames whose state is not known are not counted.

    Args:
        state: (f,) in presentation order, -1 where unknown.
        time: (f,) seconds, rising.
        period: seconds after which the trace begins again; more than `time` spans.
        tolerance: seconds.
    """

    def __init__(
        self, state: States, time: NDArray[np.float64], period: float, tolerance: float
    ) -> None:
        """Lists for each state the frames at which holding it is right."""
        self._frames = len(state)
        known = state != UNKNOWN
        self._known = np.concatenate([[0], np.cumsum(known)])
        source, place = _covered(time, period, tolerance)
        useful = known[source] & known[place]
        self._keys = np.unique(state[source][useful] * self._frames + place[useful])

    def known(self, start: NDArray[np.int64], stop: NDArray[np.int64]) -> NDArray[np.int64]:
        """How many frames of each span have a known state.

        Args:
            start: (n,) first frame, counted on through repetitions.
            stop: (n,) the frame after the last.
        """
        return self._until(self._known, stop) - self._until(self._known, start)

    def right(
        self, state: States, start: NDArray[np.int64], stop: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """At how many frames of each span holding a state is right.

        Args:
            state: (n,) held; -1 is never right.
            start: (n,) first frame, counted on through repetitions.
            stop: (n,) the frame after the last.
        """
        counts = self._of_state(state, stop) - self._of_state(state, start)
        return np.where(state == UNKNOWN, 0, counts)

    def _until(self, totals: NDArray[np.int64], stop: NDArray[np.int64]) -> NDArray[np.int64]:
        laps, place = np.divmod(stop, self._frames)
        return np.asarray(laps * totals[-1] + totals[place], dtype=np.int64)

    def _of_state(self, state: States, stop: NDArray[np.int64]) -> NDArray[np.int64]:
        laps, place = np.divmod(stop, self._frames)
        first, here, last = (
            np.searchsorted(self._keys, state * self._frames + offset)
            for offset in (0, place, self._frames)
        )
        return np.asarray(laps * (last - first) + here - first, dtype=np.int64)


def _covered(
    time: NDArray[np.float64], period: float, tolerance: float
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """All pairs of a frame and one shown at most `tolerance` seconds later, or itself."""
    frames = len(time)
    reach = min(tolerance, period)
    laps = np.concatenate([time, time + period])
    # A hair's breadth, so that 25 frames at 25 frames a second are one second.
    last = np.searchsorted(laps, time + reach + 1e-6, side="right")
    counts = np.clip(last - np.arange(frames), 1, frames)
    source = np.repeat(np.arange(frames), counts)
    steps = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    return source, (source + steps) % frames
