"""The thesis's activation probability (eq. 5.5 to 5.7) and its greedy choice (algorithm 5.2).

It ranks models once, by their links and costs alone, whatever is chosen already. `greedy` looks
at what a model adds to those that are chosen, and comes closer to the optimum.
"""

from __future__ import annotations

import numpy as np

from triparty.common.errors import SettingsError
from triparty.common.links.planning.problem import Floats, Mask, Problem

_LEAST_COST = 1e-9  # shares of a budget: a free model comes first, and is not divided by zero


def activation_probability(pairs: Floats, costs: Floats) -> Floats:
    """Eq. 5.7 for each model: (1 + mean quality from it - mean quality to it) / (w c).

    w = 2 / min c makes the largest possible value 1; being a constant, it changes no choice.

    Args:
        pairs: (n, n) quality of the link from row to column; NaN, no link, counts as 0. The
            diagonal is not used.
        costs: (n,) above 0.

    Returns:
        (n,) in 0 to 1.

    Raises:
        SettingsError: one model, or a cost that is not above 0.
    """
    n = len(costs)
    if n < 2 or not (costs > 0).all():
        raise SettingsError("activation probabilities need two models, and costs above 0")
    table = np.nan_to_num(pairs, nan=0.0)
    others = table * ~np.eye(n, dtype=bool)
    outgoing, incoming = others.sum(axis=1) / (n - 1), others.sum(axis=0) / (n - 1)
    weight = 2.0 / costs.min()
    probability: Floats = (1.0 + outgoing - incoming) / (weight * costs)
    return probability


def by_activation(problem: Problem, pairs: Floats) -> Mask:
    """Algorithm 5.2, lines 4 and 5: models by activation probability, until the budget is full.

    What does not fit is passed over, and what comes after it is tried. A model's cost is its
    largest share of a budget.

    Args:
        problem: to solve.
        pairs: (n, n) as for `activation_probability`.

    Returns:
        (n,), which models run.
    """
    active = np.zeros(len(problem.models), bool)
    if len(active) == 1:
        return np.asarray(problem.fits(~active[None])[0] | active)
    costs = np.maximum(problem.shares(problem.costs), _LEAST_COST)
    finite = np.where(np.isfinite(costs), costs, 1 / _LEAST_COST)
    for place in np.argsort(-activation_probability(pairs, finite), kind="stable"):
        more = active.copy()
        more[place] = True
        if problem.fits(more[None])[0]:
            active = more
    return active
