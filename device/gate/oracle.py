"""The bound from above: a policy that is told the truth."""

from __future__ import annotations

from typing import ClassVar, Protocol

import numpy as np

from triparty.device.gate.base import BasePolicy, EntryClock
from triparty.device.gate.columns import PerStream
from triparty.device.gate.policy import Arrivals, Column, Offers, Rows


class Truth(Protocol):
    """What models would say of every picture, by stream and presentation time."""

    def answer(self, stream: Rows, time: Column) -> Rows:
        """(n,) int64 the answer; equal numbers are equal answers."""

    def lasts(self, stream: Rows, time: Column) -> Column:
        """(n,) seconds for which that answer stays."""


class _Held(PerStream):
    fills: ClassVar = {"answer": np.iinfo(np.int64).min}

    def __init__(self) -> None:
        self.answer: Rows = np.zeros(0, np.int64)


class Oracle(BasePolicy):
    """Decodes where the held answer is wrong, for the seconds that the new one will be right.

    At the next entry it could be put right anyway, so seconds after that do not count. It pays
    for closures as everybody does, and does not see more than one group ahead: a bound for
    gates, not the optimum of the whole run.
    """

    def __init__(self, truth: Truth) -> None:
        """Is told the truth of every picture when it is on offer."""
        self._truth = truth
        self._held, self._clock = _Held(), EntryClock()
        super().__init__(self._held, self._clock)

    def see(self, arrivals: Arrivals) -> None:
        """Takes in entries."""
        self._clock.see(arrivals)

    def _value(self, arrivals: Arrivals, offers: Offers) -> Column:
        stream, time = offers.stream, arrivals.time[offers.arrivals]
        wrong = self._truth.answer(stream, time) != self._held.answer[stream]
        period = self._clock.period(stream)
        ahead = np.where(offers.entry, period, self._clock.until(stream, time))
        seconds = np.minimum(self._truth.lasts(stream, time), ahead)
        return np.where(wrong, seconds, -np.inf)

    def _chosen(self, stream: Rows, time: Column) -> None:
        self._held.answer[stream] = self._truth.answer(stream, time)
