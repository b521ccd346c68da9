"""No camera is forgotten: a bound on how long a stream may go without a look."""

from __future__ import annotations

import numpy as np

from triparty.device.gate.base import FIRST, EntryClock, Times
from triparty.device.gate.policy import Arrivals, Column, Feedback, Offers, Policy, Rows


class Bounded:
    """Any policy, with streams first that waited too long.

    A stream is due at the last entry before its bound, where a look is cheap, and from the
    bound on at any picture. The optimizer still keeps the budget: where both cannot hold, the
    budget wins and `overdue` names the streams.

    Args:
        policy: what ranks the others.
        max_staleness: seconds between two looks.
    """

    def __init__(self, policy: Policy, max_staleness: float) -> None:
        """Counts from now on."""
        self._policy = policy
        self._bound = max_staleness
        self._times, self._clock = Times(), EntryClock()
        self._now = 0.0

    def join(self, count: int) -> Rows:
        """Adds streams and returns their rows; rows of streams that left are used again."""
        rows = self._policy.join(count)
        for part in (self._times, self._clock):
            part.grow(int(rows.max(initial=-1)) + 1)
        self._times.begin(rows, self._now)
        return rows

    def leave(self, stream: int) -> None:
        """Forgets a stream."""
        self._policy.leave(stream)
        for part in (self._times, self._clock):
            part.forget(np.array([stream]))

    def see(self, arrivals: Arrivals) -> None:
        """Takes in the packets of a round, chosen or not."""
        self._clock.see(arrivals)
        self._policy.see(arrivals)

    def value(self, arrivals: Arrivals, offers: Offers) -> Column:
        """The value of each offer, (m,); those that are due are above all others."""
        self._now = offers.now
        value = self._policy.value(arrivals, offers)
        waited = self._times.staleness(offers.stream, offers.now)
        next_look = np.where(offers.entry, self._clock.period(offers.stream), 0.0)
        due = waited + next_look >= self._bound
        return np.where(due, FIRST * (1.0 + waited) * offers.cost, value)

    def chosen(self, offers: Offers, picks: Rows) -> None:
        """Hears which offers will be decoded."""
        self._times.chosen(offers.stream[picks], offers.now)
        self._policy.chosen(offers, picks)

    def learn(self, feedback: Feedback) -> None:
        """Takes in feedback, in any order and however late."""
        self._policy.learn(feedback)

    def overdue(self, now: float) -> Rows:
        """Rows of the streams that the budget left waiting for longer than the bound."""
        return self._times.stale(now, self._bound)
