"""The published design (thesis algorithm 2.1), and its ablation without feedback.

Line 3 to 7: the temporal estimate of each stream goes with the sizes of its last packets into
the network; the confidence that comes out is the value, and the optimizer divides it by the
closure's cost (line 6) and sorts (line 8). Lines 9 to 15 are `optimizer.choose` with the
leftover policy `paper`. Confidences of several tasks are combined, as one picture serves all.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from triparty.device.gate.base import FIRST, BasePolicy
from triparty.device.gate.features import Features
from triparty.device.gate.policy import Arrivals, Column, Feedback, Offers, Rows
from triparty.device.gate.predictor import Predictor, combine


class Learned(BasePolicy):
    """Ranks by the confidence of a trained network.

    Args:
        predictor: any network; the published one makes this the published design.
        importance: (tasks,) what each task counts, from 0 to 1; None: 1 each.
        explore_first: whether streams for which the paper's estimate is infinite come before
            all others, which with many streams is a round robin; else the network is given the
            largest finite estimate.
    """

    def __init__(
        self,
        predictor: Predictor,
        *,
        importance: NDArray[np.float64] | None = None,
        explore_first: bool = False,
    ) -> None:
        """Has seen nothing."""
        self._predictor, self._importance = predictor, importance
        self._features = Features(predictor.network.features)
        super().__init__(self._features)
        self._explore_first = explore_first

    def see(self, arrivals: Arrivals) -> None:
        """Line 2: takes in sizes and types."""
        self._features.see(arrivals)

    def _value(self, arrivals: Arrivals, offers: Offers) -> Column:
        matrix = self._features.matrix(arrivals, offers.arrivals)
        confidence = combine(self._predictor.probabilities(matrix), self._importance)
        value = confidence.astype(np.float64)
        if not self._explore_first:
            return value
        unknown = np.isinf(self._features.estimate(offers.stream))
        return np.where(unknown, FIRST * self.in_turn(offers), value)

    def _chosen(self, stream: Rows, time: Column) -> None:
        self._features.chosen(stream, time)

    def learn(self, feedback: Feedback) -> None:
        """Line 16: hands feedback to the estimator."""
        self._features.learn(feedback)
