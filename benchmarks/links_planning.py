"""Planning by itself: how near to the optimum, and how long it takes.

Ten models with qualities and costs drawn from N(0.5, 0.2) or Beta(0.5, 0.5), an ensemble gain
of 0.02 (thesis 5.5.5, figure 5.10), a budget of half of all costs. A run is 20 draws.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.harness import Case, Effort, case, cpu_seconds
from triparty.common.links.planning.plan import Method, choose
from triparty.common.links.planning.problem import Problem, Resource
from triparty.common.links.planning.qualities import PairQualities

MODELS: Final = 10
DRAWS: Final = 20
LEAST: Final = 0.01
FIGURE: Final = "thesis figure 5.10: near the optimum, far above standalone"
MEMORY: Final = Resource("memory_mib", "MiB")
LATENCY: Final = Resource("latency_ms", "ms")


def problem(seed: int, draw: str, share: float = 0.5, models: int = MODELS) -> Problem:
    """One draw of the simulation.

    Args:
        seed: of the draw.
        draw: `normal` or `beta`.
        share: of the cost of all models that the budget is.
        models: how many.
    """
    rng = np.random.default_rng(seed)

    def drawn(size: tuple[int, ...]) -> NDArray[np.float64]:
        made = rng.normal(0.5, 0.2, size) if draw == "normal" else rng.beta(0.5, 0.5, size)
        return np.clip(made, LEAST, 1.0)

    costs = drawn((models, 1))
    names = tuple(f"model-{number}" for number in range(models))
    qualities = PairQualities(drawn((models, models)))
    return Problem(names, qualities, (MEMORY,), costs, share * costs.sum(axis=0))


def standalone(one: Problem) -> float:
    """As many models as fit, the cheapest first; the others count as wrong."""
    spent, right = 0.0, 0.0
    for cost in np.sort(one.costs[:, 0]):
        spent += cost
        right += spent <= one.budget[0]
    return right / len(one.models)


def accuracy(one: Problem, method: Method) -> float:
    """Expected accuracy of a method's plan."""
    return choose(one, method).expected_accuracy


def _mean(draw: str, of: Callable[[Problem], float]) -> Callable[[Effort], Iterable[float]]:
    def runs(effort: Effort) -> Iterable[float]:
        draws = 4 if effort.quick else DRAWS
        return [
            100 * float(np.mean([of(problem(run * draws + n, draw)) for n in range(draws)]))
            for run in range(effort.runs)
        ]

    return runs


def _gap(one: Problem) -> float:
    return accuracy(one, "exact") - accuracy(one, "greedy")


def _rows(draw: str) -> tuple[Case, ...]:
    def row(name: str, of: Callable[[Problem], float], target: float | None = None) -> Case:
        better = "lower" if "below" in name else "higher"
        full = f"10 models, {draw}, half of the cost: {name}"
        return case(full, unit="%", better=better, target=target, reference=FIGURE)(  # type: ignore[arg-type]
            _mean(draw, of)
        )

    return (
        row("exact optimum", lambda one: accuracy(one, "exact")),
        row("ours, by marginal gain", lambda one: accuracy(one, "greedy")),
        row("ours below the optimum, points", _gap, 1.0),
        row("activation probability (eq. 5.7)", lambda one: accuracy(one, "activation")),
        row("standalone", standalone),
    )


def _hundred(effort: Effort) -> Iterable[float]:
    """CPU seconds of a plan of 100 models under two budgets, links counted."""
    for seed in range(effort.runs):
        rng = np.random.default_rng(seed)
        costs = rng.uniform(0.1, 1.0, (100, 2))
        one = Problem(
            tuple(f"model-{number}" for number in range(100)),
            PairQualities(rng.random((100, 100))),
            (MEMORY, LATENCY),
            costs,
            0.5 * costs.sum(axis=0),
            link_costs=np.full((100, 100, 2), 1e-4),
        )
        begin = cpu_seconds()
        choose(one, "greedy")
        yield cpu_seconds() - begin


PLANNING = (
    *_rows("normal"),
    *_rows("beta"),
    case(
        "planning 100 models, two budgets",
        unit="s",
        better="lower",
        target=1.0,
        reference="budget of the specification",
    )(_hundred),
)
