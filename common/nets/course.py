"""How a filter is trained, as numbers: who asks for it and who does it agree on them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, get_args

from triparty.common.errors import SettingsError

Loss = Literal["pairs", "contrastive"]
LOSSES: Final[tuple[str, ...]] = get_args(Loss)


@dataclass(frozen=True)
class Course:
    """How a filter is trained.

    Attributes:
        epochs: most passes over the samples.
        patience: passes without progress before it stops.
        held_out: share of the samples on which progress is measured.
        rate: of RMSprop.
        batch: samples a step; pairs are made of twice as many.
        loss: of `reuse`: `pairs` or `contrastive`.
        seed: of weights, order and pairs.
        accelerated: run through `accelerate`, on the one device that it finds best.
    """

    epochs: int = 20
    patience: int = 6
    held_out: float = 0.15
    rate: float = 1e-3
    batch: int = 32
    loss: Loss = "pairs"
    seed: int = 0
    accelerated: bool = False

    def __post_init__(self) -> None:
        """Refuses what cannot be trained.

        Raises:
            SettingsError: an unknown loss, or a number out of its range.
        """
        if self.loss not in LOSSES:
            raise SettingsError(f"loss {self.loss!r:.40}: expected one of {', '.join(LOSSES)}")
        if min(self.epochs, self.patience, self.batch) < 1 or not self.rate > 0:
            raise SettingsError("a course needs whole numbers from 1 and a rate above 0")
        if not 0 <= self.held_out < 1:
            raise SettingsError(f"held-out share {self.held_out}: expected 0 to below 1")
