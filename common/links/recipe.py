"""How links are trained, as numbers; needs no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from triparty.common.errors import SettingsError

LEAST_ROWS: Final = 8


@dataclass(frozen=True)
class Recipe:
    """How a link is trained.

    Attributes:
        epochs: most passes over the rows.
        patience: passes without progress on rows held out before it stops.
        folds: parts of the rows; each is held out once where there are few rows, else one is.
        few: rows up to which each part is held out once.
        rate: of Adam.
        batch: most rows a step.
        dropout: share of the hidden layer that is left out in training.
        decay: weight of the squared distance from where training began.
        source_dropout: chance that a source is left out while an ensemble is weighed.
        seed: of weights, order and folds.
    """

    epochs: int = 100
    patience: int = 10
    folds: int = 3
    few: int = 300
    rate: float = 0.01
    batch: int = 32
    dropout: float = 0.2
    decay: float = 1e-4
    source_dropout: float = 0.5
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuses what cannot be trained.

        Raises:
            SettingsError: a number out of its range.
        """
        if min(self.epochs, self.patience, self.batch) < 1 or not 2 <= self.folds <= LEAST_ROWS:
            raise SettingsError(
                "a recipe needs whole numbers from 1 for epochs, patience and batch, and 2 to "
                f"{LEAST_ROWS} folds"
            )
        if not self.rate > 0 or not self.decay >= 0 or self.few < 0:
            raise SettingsError("a recipe needs a rate above 0, and decay and few from 0")
        if not 0 <= self.dropout < 1 or not 0 <= self.source_dropout < 1:
            raise SettingsError("shares that are left out in training: expected 0 to below 1")
