"""An alarm for a filter that is no longer as accurate as it promised."""

from __future__ import annotations

from typing import Final

from triparty.common.errors import SettingsError

_WORSE: Final = (1.5, 2.0, 3.0)  # times the error rate that was promised


class DriftAlarm:
    """Sums up the evidence of audits that a filter errs more than it may.

    For each audit, the likelihood of an error rate 1.5, 2 or 3 times as high as promised, over
    that of the promised one, multiplies a product that never falls below 1; the alarm is their
    mean (an e-detector: Shin, Ramdas and Rinaldo, 2023). While the promise holds, a false alarm
    comes after `patience` audits on average or later, however long it is watched.

    Args:
        target_accuracy: that was promised.
        patience: audits.
    """

    def __init__(self, target_accuracy: float, *, patience: int = 10_000) -> None:
        """No evidence yet.

        Raises:
            SettingsError: an accuracy or a patience that cannot be.
        """
        if not 0.0 < target_accuracy < 1.0 or patience < 1:
            raise SettingsError(
                f"target accuracy {target_accuracy}, patience {patience}: expected above 0 and "
                "below 1, and at least 1"
            )
        promised = 1.0 - target_accuracy
        self._patience = patience
        self._steps = []
        for times in _WORSE:
            worse = min(times * promised, (1.0 + promised) / 2.0)
            self._steps.append(((1.0 - worse) / (1.0 - promised), worse / promised))
        self._products = [1.0] * len(_WORSE)

    @property
    def is_raised(self) -> bool:
        """Whether there is enough evidence; stays so until `reset`."""
        return sum(self._products) / len(self._products) >= self._patience

    def audited(self, *, is_wrong: bool) -> None:
        """Takes in one audit."""
        if not self.is_raised:
            self._products = [
                max(product, 1.0) * step[is_wrong]
                for product, step in zip(self._products, self._steps, strict=True)
            ]

    def reset(self) -> None:
        """Forgets all evidence, as after an update."""
        self._products = [1.0] * len(_WORSE)
