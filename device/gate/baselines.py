"""What a gate has to beat: policies without a learned part, and the thesis's ablations.

Fixed rules let offers in or not; those let in are worth their cost, so that under a tight
budget they take turns.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from triparty.device.gate.base import FIRST, BasePolicy
from triparty.device.gate.columns import PerStream
from triparty.device.gate.features import FeatureChoice, Features
from triparty.device.gate.policy import Arrivals, Column, Feedback, Offers, Rows


class RoundRobin(BasePolicy):
    """Whoever waited longest."""

    def _value(self, arrivals: Arrivals, offers: Offers) -> Column:
        return self.in_turn(offers)


class RandomOrder(BasePolicy):
    """A fair draw each round."""

    def __init__(self, *, seed: int = 0) -> None:
        """Seeds the draws."""
        super().__init__()
        self._draws = np.random.default_rng(seed)

    def _value(self, arrivals: Arrivals, offers: Offers) -> Column:
        return offers.cost * (1.0 - self._draws.random(len(offers.stream)))


class _EntryCounts(PerStream):
    fills: ClassVar = {"seen": 0}

    def __init__(self) -> None:
        self.seen: Rows = np.zeros(0, np.int64)


class Keyframes(BasePolicy):
    """Entries alone, every one or every n-th of each stream."""

    def __init__(self, *, every: int = 1) -> None:
        """Counts entries from each stream's first."""
        self._entries = _EntryCounts()
        super().__init__(self._entries)
        self._every = every

    def see(self, arrivals: Arrivals) -> None:
        """Counts entries."""
        np.add.at(self._entries.seen, arrivals.stream[arrivals.entry], 1)

    def _value(self, arrivals: Arrivals, offers: Offers) -> Column:
        turn = (self._entries.seen[offers.stream] - 1) % self._every == 0
        return np.where(offers.entry & turn, self.in_turn(offers), -np.inf)


class ReferencesOnly(BasePolicy):
    """Everything but pictures that no other refers to: what decoders call skipping non-ref."""

    def _value(self, arrivals: Arrivals, offers: Offers) -> Column:
        return np.where(offers.reference, self.in_turn(offers), -np.inf)


class SizeThreshold(BasePolicy):
    """Packets larger than usual for their stream and type, the most unusual first.

    Args:
        threshold: in spreads above the running median.
    """

    def __init__(self, *, threshold: float = 0.0) -> None:
        """Has seen nothing."""
        self._features = Features(FeatureChoice(groups=("independent", "predicted")))
        super().__init__(self._features)
        self._threshold = threshold

    def see(self, arrivals: Arrivals) -> None:
        """Takes in sizes."""
        self._features.see(arrivals)

    def _value(self, arrivals: Arrivals, offers: Offers) -> Column:
        above = self._features.score(offers.stream) - self._threshold
        return np.where(above > 0, offers.cost * above, -np.inf)


class Temporal(BasePolicy):
    """The temporal estimate alone, over closure cost (an ablation of thesis 2.5.1).

    Args:
        estimator: `paper` or `discounted`.
        window: w of the paper's.
        horizon: T of the paper's, in rounds.
    """

    def __init__(
        self, *, estimator: str = "paper", window: int = 5, horizon: int = 90_000
    ) -> None:
        """Has seen nothing."""
        choice = FeatureChoice(("temporal",), window, estimator, horizon)
        self._features = Features(choice)
        super().__init__(self._features)

    def _value(self, arrivals: Arrivals, offers: Offers) -> Column:
        estimate = self._features.estimate(offers.stream)
        waiting = FIRST * self.in_turn(offers)
        return np.where(np.isinf(estimate), waiting, estimate)

    def _chosen(self, stream: Rows, time: Column) -> None:
        self._features.chosen(stream, time)

    def learn(self, feedback: Feedback) -> None:
        """Hands feedback to the estimator."""
        self._features.learn(feedback)
