"""What rounds under differential privacy guarantee a site, as epsilon and delta; pure.

All sites that answer are in each round, so nothing is gained by sampling, and t Gaussian
mechanisms in a row are exactly one with the noise divided by sqrt(t) (Dong, Roth & Su 2022,
corollary 3.3). Its delta at an epsilon is known in closed form (Balle & Wang 2018, theorem 8),
which is less than what Renyi accountants bound.

Neighbours are two federations of which one site has other rows. Its update, cut to the norm C,
moves the sum by at most 2 C. It may also be taken in one and refused in the other: then the
mean over n moves by at most 2 C / n as well.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy.special import log_ndtr  # type: ignore[import-untyped]

from triparty.common.errors import SettingsError
from triparty.developer.federation.plan import Plan

DELTA: Final = 1e-5
_REPLACED: Final = 2.0  # clipping norms that one site's other rows move the sum by
_STEPS: Final = 200  # halvings of an interval: more than a float has


@dataclass(frozen=True)
class Spent:
    """What published links may tell of one site, all of its rows together.

    Attributes:
        epsilon: no outcome is more than e^epsilon times likelier with these rows than with
            any others,
        delta: but for this probability.
        rounds: whose links were published.
    """

    epsilon: float
    delta: float
    rounds: int


def spent(plan: Plan, rounds: int, *, delta: float = DELTA) -> Spent | None:
    """What rounds of a plan guarantee; None without noise.

    Raises:
        SettingsError: a delta that is no probability.
    """
    if plan.privacy is None:
        return None
    noise = plan.privacy.noise / _REPLACED
    return Spent(gaussian_epsilon(noise, rounds, delta), delta, rounds)


def gaussian_epsilon(noise: float, releases: int, delta: float) -> float:
    """The least epsilon of Gaussian mechanisms in a row.

    Args:
        noise: standard deviation of each, in sensitivities; above 0.
        releases: how many.
        delta: above 0, below 1.

    Raises:
        SettingsError: a number out of range.
    """
    if not (0 < delta < 1 and noise > 0 and releases >= 0):
        raise SettingsError(
            f"expected noise above 0 and a delta above 0 and below 1, got {noise}, {delta}"
        )
    if not releases:
        return 0.0
    mu = math.sqrt(releases) / noise
    if _delta(0.0, mu) <= delta:
        return 0.0
    low, high = 0.0, mu * mu / 2 + mu * math.sqrt(2 * math.log(1 / delta))
    for _ in range(_STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if _delta(middle, mu) > delta else (low, middle)
    return high


def _delta(epsilon: float, mu: float) -> float:
    """The delta of one Gaussian mechanism whose sensitivity is mu standard deviations."""
    likelier = float(np.exp(log_ndtr(mu / 2 - epsilon / mu)))
    return likelier - float(np.exp(epsilon + log_ndtr(-mu / 2 - epsilon / mu)))
