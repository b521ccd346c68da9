"""Which inputs to run all models on, so that their links follow what changes.

Every input has a chance to be asked about: all models run on it, and the links learn from what
they say. A budget says how many of each period's inputs; what is asked follows one of three
rules (thesis 5.3.1), and a share of the budget is spread evenly whatever the rule says, so that
a link that is wrong and sure of itself is found out.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Final, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from triparty.common.errors import SettingsError
from triparty.common.links.features import Floats, activate, sigmoid
from triparty.common.links.specs import Vec

Rule = Literal["periodic", "uncertainty", "predicted-loss"]
RULES: Final[tuple[str, ...]] = get_args(Rule)
_SMALL: Final = 1e-9


@dataclass(frozen=True)
class Asking:
    """How many inputs are asked about, and which.

    Attributes:
        period: inputs.
        labels: of them that are asked about, all in all.
        rule: `periodic` takes the first of each period; `uncertainty` and `predicted-loss`
            take inputs whose score is among the highest of late.
        explored: share of the labels that is spread evenly over the period.
    """

    period: int
    labels: int
    rule: Rule = "predicted-loss"
    explored: float = 0.2

    def __post_init__(self) -> None:
        """Refuses a budget that cannot be.

        Raises:
            SettingsError: an unknown rule, or a number out of its range.
        """
        if self.rule not in RULES:
            raise SettingsError(f"rule {self.rule!r:.40}: expected one of {', '.join(RULES)}")
        if not 1 <= self.labels <= self.period:
            raise SettingsError(
                f"{self.labels} labels in a period of {self.period} inputs: expected 1 to "
                f"{self.period}"
            )
        if not 0 <= self.explored <= 1:
            raise SettingsError(f"explored share {self.explored}: expected 0 to 1")


class Controller:
    """Decides input by input; never asks more than the budget in a period.

    Args:
        asking: the budget and the rule.
    """

    def __init__(self, asking: Asking) -> None:
        """Stands at the beginning of a period."""
        self._asking = asking
        self._recent: deque[float] = deque(maxlen=asking.period)
        self._place, self._asked = 0, 0

    def wants(self, score: float) -> bool:
        """Whether to ask about the next input.

        Args:
            score: how much there is to learn from it; `periodic` does not look at it.
        """
        if self._place == self._asking.period:
            self._place, self._asked = 0, 0
        is_wanted = self._asked < self._asking.labels and self._is_next(score)
        self._recent.append(score)
        self._place += 1
        self._asked += is_wanted
        return is_wanted

    def _is_next(self, score: float) -> bool:
        asking = self._asking
        if asking.rule == "periodic":
            return True
        left = asking.labels - self._asked
        rest = asking.period - self._place
        if left >= rest:
            return True
        even = round(asking.explored * asking.labels)
        if even and self._place % max(1, asking.period // even) == 0:
            return True
        if not self._recent:
            return False
        # As many of the inputs to come are as high as of those of late.
        threshold = np.quantile(np.array(self._recent), 1.0 - left / rest)
        return bool(score > threshold)


def uncertainty(spec: Vec, logits: Floats) -> NDArray[np.float64]:
    """(n,) the entropy of what a link says, as a share of the largest there can be.

    Args:
        spec: of the target, single-label or multi-label.
        logits: (n, width).

    Raises:
        SettingsError: numbers or boxes, whose uncertainty is the variance between links.
    """
    if spec.task == "single-label":
        shares = activate(spec, logits).astype(np.float64)
        entropy: NDArray[np.float64] = -(shares * np.log(shares + _SMALL)).sum(1)
        relative: NDArray[np.float64] = entropy / np.log(spec.width)
        return relative
    if spec.task == "multi-label":
        score = sigmoid(logits).astype(np.float64)
        each = -score * np.log(score + _SMALL) - (1 - score) * np.log(1 - score + _SMALL)
        mean: NDArray[np.float64] = each.mean(1) / np.log(2)
        return mean
    raise SettingsError(
        f"{spec.task} has no entropy: its uncertainty is the variance between several links"
    )


def output_variance(spec: Vec, several: NDArray[np.float32]) -> NDArray[np.float64]:
    """(n,) the variance between what several links say, in units of the target's own.

    Args:
        spec: of the target.
        several: (links, n, width) logits.

    Raises:
        SettingsError: fewer than two links.
    """
    if len(several) < 2:
        raise SettingsError(f"one link has no variance: {spec.task} needs two or more")
    variance: NDArray[np.float64] = several.astype(np.float64).var(axis=0).mean(axis=1)
    return variance
