"""What policies have in common: rows, when a stream was chosen last, what comes first."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, Final

import numpy as np

from triparty.device.gate.columns import PerStream, Roster
from triparty.device.gate.policy import Arrivals, Column, Feedback, Offers, Rows

FIRST: Final = 1e9
"""Value per ms of what goes before everything that is merely worth something."""


_HEAD_START_S: Final = 1.0  # who was never looked at comes before who was looked at just now


class Times(PerStream):
    """When each stream was chosen last, in seconds since the loop began."""

    fills: ClassVar = {"_last": np.nan}

    def __init__(self) -> None:
        """Nothing was chosen yet."""
        self._last: Column = np.zeros(0)

    def begin(self, stream: Rows, now: float) -> None:
        """Counts from now on for streams that join."""
        self._last[stream] = now

    def staleness(self, stream: Rows, now: float) -> Column:
        """(n,) seconds since each stream was chosen, or joined."""
        return now - self._last[stream]

    def chosen(self, stream: Rows, now: float) -> None:
        """Notes a choice."""
        self._last[stream] = now

    def stale(self, now: float, limit: float) -> Rows:
        """Rows of streams that were not chosen for longer than `limit` seconds."""
        return np.flatnonzero(now - self._last > limit)


class BasePolicy(ABC):
    """A policy without an opinion: keeps rows and times; subclasses say what is worth what."""

    def __init__(self, *parts: PerStream) -> None:
        """Nobody has joined.

        Args:
            parts: the subclass's own state per stream.
        """
        self._roster = Roster()
        self.times = Times()
        self._parts = (self.times, *parts)
        self._now = 0.0
        self._target_time: Column = np.zeros(0)

    def join(self, count: int) -> Rows:
        """Adds streams and returns their rows; rows of streams that left are used again."""
        rows = self._roster.join(count)
        for part in self._parts:
            part.grow(self._roster.size)
        self.times.begin(rows, self._now - _HEAD_START_S)
        return rows

    def leave(self, stream: int) -> None:
        """Forgets a stream."""
        self._roster.leave(stream)
        for part in self._parts:
            part.forget(np.array([stream]))

    def see(self, arrivals: Arrivals) -> None:  # noqa: B027 - a choice
        """Takes in the packets of a round, chosen or not."""

    def value(self, arrivals: Arrivals, offers: Offers) -> Column:
        """The value of each offer, (m,), at least 0; -inf for what must not be chosen."""
        self._now = offers.now
        self._target_time = arrivals.time[offers.arrivals]
        return self._value(arrivals, offers)

    @abstractmethod
    def _value(self, arrivals: Arrivals, offers: Offers) -> Column:
        """What a subclass says the value is."""

    def chosen(self, offers: Offers, picks: Rows) -> None:
        """Hears which offers (indices into `offers`) will be decoded."""
        self.times.chosen(offers.stream[picks], offers.now)
        self._chosen(offers.stream[picks], self._target_time[picks])

    def _chosen(self, stream: Rows, time: Column) -> None:  # noqa: B027 - a choice
        """What a subclass does about the pictures chosen in this round."""

    def learn(self, feedback: Feedback) -> None:  # noqa: B027 - a choice
        """Takes in feedback, in any order and however late."""

    def in_turn(self, offers: Offers) -> Column:
        """(m,) values by which every offer is worth its cost, the longest waiting first."""
        return offers.cost * (1.0 + self.times.staleness(offers.stream, offers.now))


class EntryClock(PerStream):
    """When the next entry of each stream is to be expected, from the times of those before."""

    fills: ClassVar = {"_last": np.nan, "_period": np.nan}

    def __init__(self, *, unknown: float = 2.0, rate: float = 0.3) -> None:
        """Has seen nothing.

        Args:
            unknown: seconds that are expected before two entries were seen.
            rate: weight of the newest period.
        """
        self._unknown, self._rate = unknown, rate
        self._last: Column = np.zeros(0)
        self._period: Column = np.zeros(0)

    def see(self, arrivals: Arrivals) -> None:
        """Takes in the entries of a round; of several of one stream the last counts."""
        stream, time = arrivals.stream[arrivals.entry], arrivals.time[arrivals.entry]
        if not len(stream):
            return
        gap = time - self._last[stream]
        before = self._period[stream]
        mixed = np.where(before == before, before + self._rate * (gap - before), gap)
        usable = gap > 0
        self._period[stream[usable]] = mixed[usable]
        self._last[stream] = time

    def period(self, stream: Rows) -> Column:
        """(n,) seconds from one entry to the next."""
        period = self._period[stream]
        return np.where(period == period, period, self._unknown)

    def until(self, stream: Rows, time: Column) -> Column:
        """(n,) seconds from `time` to the next entry; half a period where it is overdue."""
        period = self.period(stream)
        left = self._last[stream] + period - time
        return np.where(left > 0, left, period / 2)
