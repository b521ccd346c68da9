"""How necessary each stream's pictures were lately: the temporal estimator (thesis 2.4.1).

`PaperEstimator` is the printed formula, `DiscountedEstimator` what is used by default. Symbols
of the thesis: w rounds are the window, T is the number of rounds of the whole run, T_{t,i} how
often stream i was chosen in the last w rounds, r_{t,i} the feedback of round t, and mu_{t,i}
the estimate. A round is one call of `chosen`.
"""

from __future__ import annotations

from typing import ClassVar, Protocol

import numpy as np

from triparty.device.gate.columns import PerStream
from triparty.device.gate.policy import Column, Flags, Rows


class Estimator(Protocol):
    """Estimates, from feedback alone, how necessary each stream's next picture is."""

    def grow(self, rows: int) -> None:
        """Makes room for streams up to row `rows - 1`."""

    def forget(self, rows: Rows) -> None:
        """Puts streams back to what a new one begins with."""

    def estimate(self) -> Column:
        """(rows,) mu of each stream for the round that comes; never negative."""

    def chosen(self, stream: Rows, time: Column) -> None:
        """Ends a round, in which the pictures of these streams and times were chosen."""

    def learn(self, stream: Rows, time: Column, reward: Column, selected: Flags) -> None:
        """Takes in feedback on pictures, (n,) each, rewards from 0 to 1."""


class PaperEstimator(PerStream):
    """The printed formula: mu = (1/w) sum_j r_{t-j} + sqrt(3 ln T / (2 T_{t,i})).

    Kept for fidelity, with what it says: rounds without feedback count as reward 0, the bonus
    uses the known horizon T, and T_{t,i} = 0 is infinite, so that whoever was not chosen in
    the window comes first. Feedback belongs to the round in which its picture was chosen; after
    the window it is lost.

    Args:
        window: w.
        horizon: T, in rounds.
    """

    fills: ClassVar = {"_reward": 0.0, "_time": np.nan}

    def __init__(self, *, window: int = 5, horizon: int = 90_000) -> None:
        """Begins before the first round."""
        self._window, self._horizon = window, horizon
        self._round = 0
        self._reward: Column = np.zeros((0, window))
        self._time: Column = np.zeros((0, window))  # of the picture chosen in a round, or NaN

    @property
    def largest(self) -> float:
        """The largest finite estimate: always necessary, chosen once in the window."""
        return 1.0 + float(self._bonus(np.ones(1))[0])

    def estimate(self) -> Column:
        """(rows,) mu of each stream; infinite where it was not chosen in the window."""
        count: Column = np.sum(self._time == self._time, axis=1, dtype=np.float64)
        mean: Column = self._reward.sum(axis=1) / self._window
        return mean + self._bonus(count)

    def _bonus(self, count: Column) -> Column:
        with np.errstate(divide="ignore"):
            bonus: Column = np.sqrt(3.0 * np.log(self._horizon) / (2.0 * count))
        return bonus

    def chosen(self, stream: Rows, time: Column) -> None:
        """Ends a round; the oldest of the window is forgotten."""
        place = self._round % self._window
        self._reward[:, place] = 0.0
        self._time[:, place] = np.nan
        self._time[stream, place] = time
        self._round += 1

    def learn(self, stream: Rows, time: Column, reward: Column, selected: Flags) -> None:
        """Takes in the feedback of chosen pictures whose round is still in the window."""
        stream, time, reward = stream[selected], time[selected], reward[selected]
        item, place = np.nonzero(self._time[stream] == time[:, None])
        self._reward[stream[item], place] = reward[item]


class DiscountedEstimator(PerStream):
    """Mean over observed pictures, with a prior, and a bonus over discounted counts.

    mu = (S + a) / (N + a + b) + scale * sqrt(3 ln t / (2 (T_i + 1))), where S and N are the sum
    of rewards and the number of observed pictures, T_i the number of rounds in which the stream
    was chosen, all three multiplied by `discount` every round: a window without an edge, of
    1 / (1 - discount) rounds, in the place of the thesis' w. t is the round, in the place of
    its T. What was not observed counts as nothing, and nothing is infinite.

    Args:
        discount: a round; 0.998 forgets half in 346 rounds, 14 s at 40 ms.
        scale: of the bonus; 0.1 adds at most 0.4 in the first day.
        prior: (a, b), rewards and their absence before anything was observed.
        dependencies: whether pictures decoded for the sake of others are observations too.
    """

    fills: ClassVar = {"_sum": 0.0, "_observed": 0.0, "_count": 0.0}

    def __init__(
        self,
        *,
        discount: float = 0.998,
        scale: float = 0.1,
        prior: tuple[float, float] = (0.5, 1.0),
        dependencies: bool = True,
    ) -> None:
        """Begins before the first round."""
        self._discount, self._scale, self._prior = discount, scale, prior
        self._dependencies = dependencies
        self._round = 1
        self._sum: Column = np.zeros(0)
        self._observed: Column = np.zeros(0)
        self._count: Column = np.zeros(0)

    def mean(self) -> Column:
        """(rows,) the mean reward of each stream, from 0 to 1."""
        a, b = self._prior
        return (self._sum + a) / (self._observed + (a + b))

    def observed(self) -> Column:
        """(rows,) how many pictures the mean rests on, discounted."""
        return self._observed

    def estimate(self) -> Column:
        """(rows,) mu of each stream."""
        bonus: Column = np.sqrt(1.5 * np.log(self._round) / (self._count + 1.0))
        return self.mean() + self._scale * bonus

    def chosen(self, stream: Rows, time: Column) -> None:
        """Ends a round."""
        for discounted in (self._sum, self._observed, self._count):
            discounted *= self._discount
        self._count[stream] += 1.0
        self._round += 1

    def learn(self, stream: Rows, time: Column, reward: Column, selected: Flags) -> None:
        """Takes in feedback, however late."""
        if not self._dependencies:
            stream, reward = stream[selected], reward[selected]
        np.add.at(self._sum, stream, reward)
        np.add.at(self._observed, stream, 1.0)
