"""Which offers of a round to take: greedy by value per cost (thesis 2.4.3, algorithm 2.1).

The thesis ranks offers by confidence / closure cost and takes them while the spent budget is
below B, so its last item may exceed B; what its line 15 does with the leftover budget then
never happens. The leftover policies:

* `paper`: that loop as printed.
* `stop`: stops before the first offer that does not fit, as lemma 2.1 assumes.
* `scan`: goes on with later offers that still fit. If one offer alone is worth more than all
  that, it comes first: with this check the value is at least half of the optimum, for any
  costs and values (the classical bound for the 0/1 knapsack).
* `prefix`: as `stop`; the leftover goes into the first part of the chain of the offer that did
  not fit, which makes it cheaper in the rounds to come.

The lemma's 1 - c/B needs offers whose value can be had in parts. A closure has no value before
its last picture, so that bound is not claimed here; the benchmarks show the measured ratio to
the exact optimum.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, get_args

import numpy as np

from triparty.common.errors import SettingsError
from triparty.device.gate.policy import Column, Rows

Leftover = Literal["paper", "stop", "scan", "prefix"]
LEFTOVERS: Final[tuple[str, ...]] = get_args(Leftover)
_SMALLEST_COST = 1e-9


@dataclass(frozen=True, slots=True)
class Choice:
    """What is decoded in a round.

    Attributes:
        picks: indices of the offers, in the order in which they were taken.
        cost: of the picks together, in ms.
        invested: the offer whose chain gets `leftover`, or None.
        leftover: ms for a prefix of that chain; 0 without one.
    """

    picks: Rows
    cost: float
    invested: int | None = None
    leftover: float = 0.0


def choose(
    value: Column,
    cost: Column,
    budget: float,
    *,
    staleness: Column | None = None,
    leftover: str = "scan",
) -> Choice:
    """Takes offers by value per cost under a budget; deterministic.

    Args:
        value: (m,) worth of each offer; offers that are not worth more than 0 are never taken.
        cost: (m,) ms of each closure, not negative.
        budget: ms that may be spent; never exceeded, but by `paper` by up to one offer.
        staleness: (m,) breaks ties, the larger first; equal ones go by index.
        leftover: what to do at the first offer that does not fit.

    Raises:
        SettingsError: no such leftover policy.
    """
    if leftover not in LEFTOVERS:
        raise SettingsError(f"leftover '{leftover}': expected {', '.join(LEFTOVERS)}")
    order = _ranked(value, cost, staleness)
    spent = np.cumsum(cost[order])
    if leftover == "paper":
        count = int(np.searchsorted(spent - cost[order], budget, side="left"))
        return _choice(order[:count], cost)
    count = int(np.searchsorted(spent, budget, side="right"))
    if leftover == "scan":
        return _choice(_scanned(order, value, cost, budget), cost)
    taken = _choice(order[:count], cost)
    if leftover == "stop" or count == len(order):
        return taken
    return Choice(taken.picks, taken.cost, int(order[count]), max(0.0, budget - taken.cost))


def _ranked(value: Column, cost: Column, staleness: Column | None) -> Rows:
    """Offers worth something, the best first."""
    offers = np.flatnonzero(value > 0)
    ratio = value[offers] / np.maximum(cost[offers], _SMALLEST_COST)
    if staleness is None:
        return offers[np.argsort(-ratio, kind="stable")]
    return offers[np.lexsort((-staleness[offers], -ratio))]


def _scanned(order: Rows, value: Column, cost: Column, budget: float) -> Rows:
    """The greedy set, or the best single offer with what fits beside it."""
    fitting = order[cost[order] <= budget]
    greedy = _fill(fitting, cost, budget)
    if not len(fitting):
        return greedy
    best = fitting[np.argmax(value[fitting])]
    if value[best] <= value[greedy].sum():
        return greedy
    others = fitting[fitting != best]
    return np.concatenate([[best], _fill(others, cost, budget - cost[best])])


def _fill(order: Rows, cost: Column, budget: float) -> Rows:
    """Takes each offer in turn that still fits; whole runs at once."""
    taken: list[Rows] = []
    while True:
        order = order[cost[order] <= budget]  # what is too large now never fits later
        count = int(np.searchsorted(np.cumsum(cost[order]), budget, side="right"))
        if not count:
            return np.concatenate([*taken, order[:0]])
        taken.append(order[:count])
        budget -= float(cost[order[:count]].sum())
        order = order[count:]


def _choice(picks: Rows, cost: Column) -> Choice:
    return Choice(picks, float(cost[picks].sum()))
