"""What a site trains: the seam between Flower's messages and links."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from triparty.common.federation import Task, Weights


@dataclass(frozen=True)
class Trained:
    """What came of training at a site; all that leaves it.

    Attributes:
        weights: of the links.
        examples: that were trained on.
        loss: mean, over the last pass.
    """

    weights: Weights
    examples: int
    loss: float


class Learner(Protocol):
    """Trains on data of its own."""

    def train(self, weights: Weights, task: Task) -> Trained:
        """Goes on from weights, as the task says.

        Args:
            weights: as they came, by name; they are not changed.
            task: what to do.

        Raises:
            FederationError: weights that are not those of the task's links, or a task that the
                site's data do not fit.
        """
