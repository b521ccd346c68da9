"""Models that run on some of the inputs alone, where inputs follow each other in time.

What a model said a moment ago is often what it would say now. So time that is left when the
chosen models run on every input goes to the others, each on one of so many inputs. Between, its
output of before is held as long as that has agreed more often than links do, and predicted
after. How often outputs agree with those of some inputs before is measured on a sample, as
links are; which models run always and which now and then is chosen together, by what each adds
to the expected accuracy for its share of the budget. Memory counts in full: a model that runs
now and then stays loaded.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from triparty.common.errors import SettingsError
from triparty.common.links.metrics import agreement
from triparty.common.links.planning.costs import LATENCY
from triparty.common.links.planning.plan import EXACT_BY_DEFAULT, choose
from triparty.common.links.planning.problem import Floats, Mask, Problem
from triparty.common.links.recorded import Recorded

EVERY: Final = (2, 3, 4, 6, 8, 12, 16, 24, 32)
"""On one of so many inputs a model may run."""
_LEAST: Final = 1e-9  # gains below this are rounding


@dataclass(frozen=True)
class Refresh:
    """How a model is run that does not run on every input.

    Attributes:
        every: inputs, on the first of which it runs.
        held: by how many inputs ago it ran, from 1 on, how often its output of then agrees; as
            long as that is as good as links. Later ones are predicted.
    """

    every: int
    held: tuple[float, ...]

    def __post_init__(self) -> None:
        """Refuses what cannot be.

        Raises:
            SettingsError: a period below 2, or more shares than inputs between.
        """
        if self.every < 2 or len(self.held) >= self.every:
            raise SettingsError(
                f"a model that runs on one of {self.every} inputs: expected at least 2, and "
                f"its output held for fewer than so many, got {len(self.held)}"
            )


@dataclass(frozen=True)
class Refreshed:
    """Which models run on every input, and which now and then.

    Attributes:
        active: on every input.
        refresh: how the others run that run at all, by name.
        expected_accuracy: mean over all models and inputs.
        cost: for one input on average, by resource.
    """

    active: tuple[str, ...]
    refresh: Mapping[str, Refresh]
    expected_accuracy: float
    cost: Mapping[str, float]


def held_agreement(
    recorded: Recorded,
    stretch: NDArray[np.int64],
    *,
    most: int = max(EVERY),
    doubt: float = 1.0,
) -> dict[str, Floats]:
    """How often outputs agree with those of some inputs before, by model.

    Args:
        recorded: in the order of time.
        stretch: (n,) numbers; inputs of one follow each other without a gap.
        most: ages to measure, 0 to one less than this.
        doubt: rows that are taken not to have agreed, beside those of the sample.

    Returns:
        (most,) shares by age; 1 for age 0, 0 for one that no stretch is long enough for.
    """
    shares = {name: np.zeros(most) for name in recorded.specs}
    for age in range(most):
        rows = np.arange(age, len(stretch))
        rows = rows[stretch[rows] == stretch[rows - age]]
        for name, spec in recorded.specs.items():
            said = recorded.outputs[name]
            if age == 0:
                shares[name][0] = 1.0
            elif len(rows):
                right = float(agreement(spec, said[rows - age], said[rows]).sum())
                shares[name][age] = right / (len(rows) + doubt)
    return shares


def refreshed(
    problem: Problem, held: Mapping[str, Floats], *, every: Sequence[int] = EVERY
) -> Refreshed:
    """Which models run on every input, and which now and then, under all budgets.

    Args:
        problem: to solve; a budget of latency is for one input on average.
        held: of `held_agreement`, for all models of the problem.
        every: periods to choose from.

    Raises:
        SettingsError: a model without shares, or shares of fewer ages than a period has.
    """
    for name in problem.models:
        if name not in held or len(held[name]) < max(every):
            raise SettingsError(f"'{name}': expected shares of {max(every)} ages")
    best: tuple[float, Mask, dict[int, int]] | None = None
    for active in _sets(problem):
        accuracy, periods = _filled(problem, held, active, every)
        if best is None or accuracy > best[0] + _LEAST:
            best = (accuracy, active, periods)
    if best is None:
        raise SettingsError("no models fit into the budget, not even none")
    accuracy, active, periods = best
    qualities = problem.qualities.of(active[None])[0]
    names = problem.models
    cost = _cost(problem, active, periods)
    return Refreshed(
        tuple(names[n] for n in np.flatnonzero(active)),
        {
            names[n]: Refresh(period, _kept(held[names[n]], float(qualities[n]), period))
            for n, period in periods.items()
        },
        accuracy,
        {one.name: float(cost[k]) for k, one in enumerate(problem.resources)},
    )


def _sets(problem: Problem) -> Iterator[Mask]:
    """Models that may run on every input: all sets of a few, else the plan and what it has."""
    n = len(problem.models)
    if n <= EXACT_BY_DEFAULT:
        sets = (np.arange(1 << n)[:, None] >> np.arange(n) & 1).astype(bool)
        yield from sets[problem.fits(sets)]
        return
    chosen = np.isin(problem.models, choose(problem).active)
    fewer = [np.zeros(n, bool), *(chosen & (np.arange(n) != out) for out in range(n)), chosen]
    yield from (one for one in fewer if problem.fits(one[None])[0])


def _filled(
    problem: Problem, held: Mapping[str, Floats], active: Mask, every: Sequence[int]
) -> tuple[float, dict[int, int]]:
    """The accuracy when what is left of the budgets is spent well, and the periods."""
    qualities = np.clip(problem.qualities.of(active[None])[0], 0.0, 1.0)
    weights = problem.weights / problem.weights.sum()
    worth = {
        (n, period): float(
            np.mean(_best(held[problem.models[n]], float(qualities[n]), period)) - qualities[n]
        )
        for n in np.flatnonzero(~active).tolist()
        for period in every
    }
    periods: dict[int, int] = {}
    gained = 0.0
    while True:
        spent = _cost(problem, active, periods)
        now = {n: worth[n, period] for n, period in periods.items()}
        best: tuple[float, int, int] | None = None
        for (n, period), value in worth.items():
            gain = weights[n] * (value - now.get(n, 0.0))
            more = _cost(problem, active, {**periods, n: period})
            if gain <= _LEAST or (more > problem.budget * (1 + _LEAST)).any():
                continue
            share = float(problem.shares(np.maximum(more - spent, 0.0)[None])[0])
            if best is None or gain / max(share, _LEAST) > best[0]:
                best = (gain / max(share, _LEAST), n, period)
        if best is None:
            break
        _, n, period = best
        gained += weights[n] * (worth[n, period] - now.get(n, 0.0))
        periods[n] = period
    return float(problem.accuracy(active[None])[0]) + gained, periods


def _cost(problem: Problem, active: Mask, periods: Mapping[int, int]) -> Floats:
    """(k,) for one input on average, of models that always run and of those now and then."""
    cost = problem.cost(active[None])[0].copy()
    for k, resource in enumerate(problem.resources):
        for n, period in periods.items():
            own = problem.costs[n, k]
            if resource.name == LATENCY.name:
                cost[k] += own / period
            else:
                cost[k] = cost[k] + own if resource.combine == "sum" else max(cost[k], own)
    made: Floats = cost
    return made


def _kept(held: Floats, linked: float, period: int) -> tuple[float, ...]:
    """Shares of the ages, from 1 on, up to which holding is as good as links."""
    ages = held[1:period]
    worse = np.flatnonzero(ages < linked)
    return tuple(float(one) for one in ages[: worse[0] if len(worse) else len(ages)])


def _best(held: Floats, linked: float, period: int) -> Floats:
    """(period,) what is expected of the inputs of a period."""
    kept = _kept(held, linked, period)
    made: Floats = np.array([1.0, *kept, *[linked] * (period - 1 - len(kept))])
    return made
