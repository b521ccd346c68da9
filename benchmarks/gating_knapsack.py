"""How much of the best choice of a round the greedy ones reach.

Rounds are small enough for the exact 0/1 knapsack (dynamic programming over tenths of a ms):
some streams at an entry, others deep in a group whose chain is pending, as closures cost. Lemma
2.1 of the thesis promises 1 - c/B for offers that can be had in parts; closures cannot, so the
ratio is measured.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from benchmarks.harness import Case, Effort, case
from triparty.device.gate.optimizer import choose

STREAMS = 20
BUDGET_MS = 60.0
KEY_MS, OTHER_MS = 20.0, 2.0


def _round(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Values and costs in whole tenths of a ms."""
    depth = np.where(rng.random(STREAMS) < 0.2, 0, rng.integers(0, 50, STREAMS))
    skipped = rng.random(STREAMS) < 0.5
    chain = np.where(skipped, KEY_MS + depth * OTHER_MS, rng.integers(1, 6, STREAMS) * OTHER_MS)
    cost = np.round(10 * chain * rng.uniform(0.7, 1.3, STREAMS)) / 10
    return rng.random(STREAMS), np.maximum(cost, 0.1)


def best_value(value: np.ndarray, cost: np.ndarray, budget: float) -> float:
    """The largest sum of values whose costs, whole tenths, fit into the budget."""
    best = np.zeros(round(10 * budget) + 1)
    for worth, weight in zip(value, np.rint(10 * cost).astype(int), strict=True):
        if weight < len(best):
            with_it = best[: len(best) - weight] + worth
            best[weight:] = np.maximum(best[weight:], with_it)
    return float(best[-1])


def _ratios(leftover: str, rounds: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    ratios = []
    for _ in range(rounds):
        value, cost = _round(rng)
        picks = choose(value, cost, BUDGET_MS, leftover=leftover).picks
        ratios.append(value[picks].sum() / best_value(value, cost, BUDGET_MS))
    return np.array(ratios)


def _case(leftover: str, worst: bool) -> Case:
    @case(
        f"value of leftover '{leftover}' against the exact knapsack, "
        + ("worst round" if worst else "mean"),
        unit="ratio",
        better="higher",
        reference="thesis lemma 2.1: 1 - c/B for offers that can be had in parts",
    )
    def measure(effort: Effort) -> Iterable[float]:
        for seed in range(effort.runs):
            ratios = _ratios(leftover, 100 if effort.quick else 1000, seed)
            yield float(ratios.min() if worst else ratios.mean())

    return measure


KNAPSACK = tuple(
    _case(leftover, worst) for leftover in ("stop", "scan") for worst in (False, True)
)
