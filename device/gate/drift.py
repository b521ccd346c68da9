"""How fast each stream's answer goes out of date, learned from feedback alone."""

from __future__ import annotations

from typing import ClassVar, Final

import numpy as np

from triparty.device.gate.columns import PerStream
from triparty.device.gate.policy import Column, Flags, Rows
from triparty.device.gate.windows import waves

_FLEET: Final = 100.0  # how much longer what all streams say together is remembered


class Drift(PerStream):
    """The rate at which a stream's answer changes, as if changes came by chance (Poisson).

    A picture that is looked at `age` seconds after the one before says whether the answer
    changed in between: a censored observation. Its expected number of changes and the time
    that it tells of are what the expectation-maximisation step for a censored exponential
    gives; the rate is their ratio over the last minutes, with the mean of all streams as a
    prior.

    Args:
        memory: seconds that count; what is older fades.
        prior: changes that the mean of all streams is worth.
        first: rate per second before anything is known.
    """

    fills: ClassVar = {"_changes": 0.0, "_seconds": 0.0, "_heard": np.nan}

    def __init__(self, *, memory: float = 60.0, prior: float = 2.0, first: float = 0.2) -> None:
        """Has seen nothing."""
        self._memory, self._prior = memory, prior
        self._all_changes, self._all_seconds = 1.0, 1.0 / first
        self._changes: Column = np.zeros(0)
        self._seconds: Column = np.zeros(0)
        self._heard: Column = np.zeros(0)

    def rate(self, stream: Rows) -> Column:
        """(n,) expected changes per second."""
        mean = self._all_changes / self._all_seconds
        changes = self._changes[stream] + self._prior
        return changes / (self._seconds[stream] + self._prior / mean)

    def wrong(self, stream: Rows, time: Column) -> Column:
        """(n,) how likely the answer of each stream is out of date at a presentation time.

        Certain before the first answer.
        """
        heard = self._heard[stream]
        age = np.maximum(time - np.where(heard == heard, heard, 0.0), 0.0)
        return np.where(heard == heard, -np.expm1(-self.rate(stream) * age), 1.0)

    def learn(self, stream: Rows, time: Column, changed: Column) -> None:
        """Takes in feedback, (n,) each; `changed` from 0 to 1.

        An answer about a time before the stream's last one tells nothing of its age: it is
        left out.
        """
        order = np.argsort(time, kind="stable")
        for wave in waves(stream[order]):
            one = order[wave]
            self._learn(stream[one], time[one], changed[one])

    def _learn(self, stream: Rows, time: Column, changed: Column) -> None:
        heard = self._heard[stream]
        first: Flags = heard != heard
        self._heard[stream] = np.fmax(heard, time)
        useful = ~first & (time > heard)
        stream, changed = stream[useful], changed[useful]
        age = time[useful] - heard[useful]
        seconds = changed * _time_to_change(self.rate(stream), age) + (1.0 - changed) * age
        keep = np.exp(-age / self._memory)
        self._changes[stream] = keep * self._changes[stream] + changed
        self._seconds[stream] = keep * self._seconds[stream] + seconds
        fade = np.exp(-age.sum() / (_FLEET * self._memory))
        self._all_changes = fade * self._all_changes + changed.sum()
        self._all_seconds = fade * self._all_seconds + seconds.sum()


def _time_to_change(rate: Column, age: Column) -> Column:
    """Expected time of the first change, given that it came within `age`."""
    product = rate * age
    small = product < 1e-4
    safe = np.where(small, 1.0, product)
    share = np.where(small, 0.5 - product / 12.0, 1.0 / safe - 1.0 / np.expm1(safe))
    return share * age
