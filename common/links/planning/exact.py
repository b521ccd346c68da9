"""The best set of models, by looking at all sets."""

from __future__ import annotations

import numpy as np

from triparty.common.errors import SettingsError
from triparty.common.links.planning.problem import Mask, Problem

MOST_MODELS = 16
_AT_ONCE = 1 << 12


def optimum(problem: Problem) -> Mask:
    """The set of the highest accuracy within the budget; of equal ones the cheapest.

    Args:
        problem: of at most `MOST_MODELS` models.

    Returns:
        (n,), which models run.

    Raises:
        SettingsError: too many models.
    """
    n = len(problem.models)
    if n > MOST_MODELS:
        raise SettingsError(
            f"the exact optimum looks at all sets of at most {MOST_MODELS} models, got {n}: "
            "plan greedily"
        )
    best, found = (-1.0, 0.0), np.zeros(n, bool)
    for first in range(0, 1 << n, _AT_ONCE):
        numbers = np.arange(first, min(first + _AT_ONCE, 1 << n))
        sets = (numbers[:, None] >> np.arange(n) & 1).astype(bool)
        sets = sets[problem.fits(sets)]
        if not len(sets):
            continue
        accuracy = np.round(problem.accuracy(sets), 12)
        shares = problem.shares(problem.cost(sets))
        place = int(np.lexsort((shares, -accuracy))[0])
        here = (float(accuracy[place]), -float(shares[place]))
        if here > best:
            best, found = here, sets[place]
    return found
