"""No camera is forgotten: a bound on how long a stream may go without a look."""

from __future__ import annotations

from typing import ClassVar, Final

import numpy as np

from triparty.device.gate.base import FIRST, EntryClock, Times
from triparty.device.gate.columns import PerStream
from triparty.device.gate.policy import Arrivals, Column, Feedback, Offers, Policy, Rows

_PURSUIT_S: Final = 1.0


class _Due(PerStream):
    """Since when each stream has been due; NaN if it is not."""

    fills: ClassVar = {"since": np.nan}

    def __init__(self) -> None:
        self.since: Column = np.zeros(0)


class Bounded:
    """Any policy, with streams first that waited too long.

    A stream is due at the last entry before its bound, where a look is cheap, and from the
    bound on at any picture. The optimizer still keeps the budget: where both cannot hold, the
    budget wins and `overdue` names the streams. A budget that others always use up would
    never suffice for an entry: while somebody due did not fit, nobody else is let in, for up
    to a second; then that stream waits for its next entry.

    Args:
        policy: what ranks the others.
        max_staleness: seconds between two looks.
    """

    def __init__(self, policy: Policy, max_staleness: float) -> None:
        """Counts from now on."""
        self._policy = policy
        self._bound = max_staleness
        self._times, self._clock, self._due = Times(), EntryClock(), _Due()
        self._parts = (self._times, self._clock, self._due)
        self._now = 0.0

    def join(self, count: int) -> Rows:
        """Adds streams and returns their rows; rows of streams that left are used again."""
        rows = self._policy.join(count)
        for part in self._parts:
            part.grow(int(rows.max(initial=-1)) + 1)
        self._times.begin(rows, self._now)
        return rows

    def leave(self, stream: int) -> None:
        """Forgets a stream."""
        self._policy.leave(stream)
        for part in self._parts:
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
        since = self._due.since[offers.stream]
        pursued = offers.now - since <= _PURSUIT_S
        period = self._clock.period(offers.stream)
        next_look = np.where(offers.entry, period + _PURSUIT_S, 0.0)
        begins = (waited + next_look >= self._bound) & (offers.entry | (since != since))
        self._due.since[offers.stream[begins]] = offers.now
        if pursued.any():
            value = np.full(len(value), -np.inf)
        return np.where(begins | pursued, FIRST * (1.0 + waited) * offers.cost, value)

    def chosen(self, offers: Offers, picks: Rows) -> None:
        """Hears which offers will be decoded."""
        self._times.chosen(offers.stream[picks], offers.now)
        self._due.since[offers.stream[picks]] = np.nan
        self._policy.chosen(offers, picks)

    def learn(self, feedback: Feedback) -> None:
        """Takes in feedback, in any order and however late."""
        self._policy.learn(feedback)

    def overdue(self, now: float) -> Rows:
        """Rows of the streams that the budget left waiting for longer than the bound."""
        return self._times.stale(now, self._bound)
