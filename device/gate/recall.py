"""The recall audit: what gating missed, estimated from groups that are decoded whole.

Online nobody knows what was not decoded. From time to time one group of pictures of a stream
is therefore decoded whole, beside what the gate chose, out of a small budget of its own (thesis
2.3 names such a slow path). Which groups is decided by a coin before anything is known of them,
so what is found in them stands for all (the Horvitz-Thompson estimate: each finding weighs one
over the probability that its group was looked at). Feedback from an audit may train the gate;
its pictures never count as chosen.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Final

import numpy as np

from triparty.common.errors import SettingsError
from triparty.device.gate.columns import PerStream
from triparty.device.gate.policy import Column, Flags, Rows

_NORMAL_95: Final = 1.959963984540054


@dataclass(frozen=True)
class AuditedGroup:
    """What auditing one group of pictures found, in one task.

    Attributes:
        probability: with which the group was to be audited, above 0.
        pictures: of the group, whose truth is now known.
        right: pictures at which the answer that the gate held was right.
        changes: of the true answer.
        caught: changes after which the gate looked before the answer changed again.
    """

    probability: float
    pictures: int
    right: int
    changes: int
    caught: int

    def __post_init__(self) -> None:
        """Refuses what cannot be counted.

        Raises:
            SettingsError: a probability that is none, or more found than there was.
        """
        if not 0.0 < self.probability <= 1.0:
            raise SettingsError(f"audit probability {self.probability}: expected above 0 to 1")
        if not (0 <= self.right <= self.pictures and 0 <= self.caught <= self.changes):
            raise SettingsError("an audit cannot find more right than it looked at")


@dataclass(frozen=True)
class Estimate:
    """A share with its 95 % confidence interval.

    Attributes:
        share: from 0 to 1; NaN if nothing was there to find.
        low: end of the interval.
        high: other end.
        groups: that it rests on.
    """

    share: float
    low: float
    high: float
    groups: int


class AuditSchedule(PerStream):
    """Which groups are audited: a coin at each entry, the same for all streams.

    The probability is that at which audits take their share of the decode budget in the mean:
    it depends on money alone, never on what the gate thinks of a group. A group is audited
    whole or not at all.

    Args:
        share: of the decode budget that audits may take, e.g. 0.02.
        seed: of the coin; None takes the system's.
    """

    fills: ClassVar = {"_probability": 0.0}

    def __init__(self, *, share: float, seed: int | None = None) -> None:
        """Nothing is audited yet.

        Raises:
            SettingsError: a share that is none.
        """
        if not 0.0 <= share <= 1.0:
            raise SettingsError(f"audit share {share}: expected 0 to 1")
        self._share = share
        self._coin = np.random.default_rng(seed)
        self._probability: Column = np.zeros(0)
        self._granted = self._everything = 0.0

    def packets(self, stream: Rows, entry: Flags, cost: Column, budget_ms: float) -> Rows:
        """Takes in a round; the streams whose packets must be decoded for an audit.

        Args:
            stream: (n,) rows, each once.
            entry: (n,) whether a group begins.
            cost: (n,) CPU ms of each packet.
            budget_ms: decode budget of this round, all streams together.

        Returns:
            Rows whose packet of this round belongs to an audited group.
        """
        self._granted += self._share * budget_ms
        self._everything += float(cost.sum())
        begins = stream[entry]
        chance = self._chance()
        heads = self._coin.random(len(begins)) < chance
        self._probability[begins] = np.where(heads, chance, 0.0)
        audited = self._probability[stream] > 0.0
        picked: Rows = stream[audited]
        return picked

    def _chance(self) -> float:
        """With which a group that begins now is audited."""
        if self._everything == 0.0:
            return 0.0
        return min(1.0, self._granted / self._everything)

    def probability(self, stream: Rows) -> Column:
        """(n,) with which the running group of each stream was to be audited; 0: it is not."""
        chances: Column = self._probability[stream]
        return chances


def accuracy(groups: Sequence[AuditedGroup]) -> Estimate:
    """The share of all pictures at which the held answer was right."""
    return _ratio([(one.probability, one.pictures, one.right) for one in groups])


def recall(groups: Sequence[AuditedGroup]) -> Estimate:
    """The share of all changes that the gate caught."""
    return _ratio([(one.probability, one.changes, one.caught) for one in groups])


def _ratio(found: Sequence[tuple[float, int, int]]) -> Estimate:
    """Ratio of two Horvitz-Thompson totals, with the interval of its linearisation.

    The variance of Poisson sampling (a coin for each group) is estimated by the sum over the
    groups that were looked at of (1 - p) / p^2 * (found - ratio * there)^2 (Saerndal, Swensson
    and Wretman, 1992, 5.6). Where all groups say the same it is 0, and their number bounds what
    the others may say: of n alike, fewer than 1 - 0.025 ** (1 / n) of all are others.
    """
    if not found:
        return Estimate(math.nan, 0.0, 1.0, 0)
    chance, there, hits = (np.array(column, np.float64) for column in zip(*found, strict=True))
    total = (there / chance).sum()
    if total == 0.0:
        return Estimate(math.nan, 0.0, 1.0, len(found))
    share = float((hits / chance).sum() / total)
    off = hits - share * there
    spread = _NORMAL_95 * math.sqrt(float(((1 - chance) * (off / chance) ** 2).sum())) / total
    if np.allclose(off, 0.0) and (chance < 1).any():
        spread = 1 - 0.025 ** (1 / np.count_nonzero(there))
    return Estimate(share, max(0.0, share - spread), min(1.0, share + spread), len(found))
