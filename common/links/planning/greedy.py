"""Choosing models by what each adds to those that are chosen already."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations

import numpy as np

from triparty.common.links.planning.problem import Floats, Mask, Problem, with_each

_ROUNDS = 8
_MOST_FOR_PAIRS = 12  # models that run: of more, exchanging two at a time takes too long
_LEAST = 1e-12  # gains and shares below this are rounding

Score = Callable[[Floats, Floats], Floats]


def greedy(problem: Problem) -> Mask:
    """The better of growing by gain and by gain per cost, then bettered by exchanges.

    An exchange takes one model out, or two of few, and grows again; it stays if the accuracy
    rises.

    Args:
        problem: to solve.

    Returns:
        (n,), which models run; never over a budget.
    """
    none = np.zeros(len(problem.models), bool)
    grown = [_grown(problem, none, score) for score in (_by_gain, _by_gain_per_cost)]
    best = max(grown, key=lambda active: float(problem.accuracy(active[None])[0]))
    for _ in range(_ROUNDS):
        better = _exchanged(problem, best)
        if better is None:
            break
        best = better
    return best


def _grown(problem: Problem, active: Mask, score: Score) -> Mask:
    """A set with models added, the best first, while any that fits adds something."""
    active = active.copy()
    while not active.all():
        each = with_each(active)
        costs = problem.cost(each)
        open_ = ~active & problem.fits(each)
        gains = problem.accuracy_with_each(active) - problem.accuracy(active[None])[0]
        open_ &= gains > _LEAST
        if not open_.any():
            break
        extra = problem.shares(np.maximum(costs - problem.cost(active[None]), 0.0))
        active[np.argmax(np.where(open_, score(gains, extra), -np.inf))] = True
    return active


def _exchanged(problem: Problem, active: Mask) -> Mask | None:
    """The best of all exchanges; None if none is better."""
    found, best = None, float(problem.accuracy(active[None])[0]) + _LEAST
    places = np.flatnonzero(active).tolist()
    sizes = (1, 2) if len(places) <= _MOST_FOR_PAIRS else (1,)
    for out in (each for size in sizes for each in combinations(places, size)):
        fewer = active.copy()
        fewer[list(out)] = False
        if not problem.fits(fewer[None])[0]:
            continue  # without it more links run, and may cost more
        for score in (_by_gain, _by_gain_per_cost):
            other = _grown(problem, fewer, score)
            accuracy = float(problem.accuracy(other[None])[0])
            if accuracy > best:
                found, best = other, accuracy
    return found


def _by_gain(gains: Floats, shares: Floats) -> Floats:
    del shares
    return gains


def _by_gain_per_cost(gains: Floats, shares: Floats) -> Floats:
    ratio: Floats = gains / np.maximum(shares, _LEAST)
    return ratio
