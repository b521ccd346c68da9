"""Models that run now and then: what that is worth is measured, and budgets are kept."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from triparty.common.errors import SettingsError
from triparty.common.links.planning.costs import LATENCY, MEMORY
from triparty.common.links.planning.plan import choose
from triparty.common.links.planning.problem import Floats, Problem
from triparty.common.links.planning.qualities import PairQualities
from triparty.common.links.planning.refreshing import Refresh, held_agreement, refreshed
from triparty.common.links.recorded import check_recorded
from triparty.common.links.specs import Vec

EVERY = (2, 3, 5)


def _problem(
    seed: int, *, memory: float = 1e6, latency: float = 0.5, models: int = 4
) -> Problem:
    rng = np.random.default_rng(seed)
    costs = rng.uniform(0.2, 1.0, (models, 2))
    return Problem(
        tuple(f"model-{number}" for number in range(models)),
        PairQualities(rng.uniform(0.2, 0.9, (models, models))),
        (MEMORY, LATENCY),
        costs,
        np.array([memory, latency * costs[:, 1].sum()]),
        link_costs=np.full((models, models, 2), 1e-3),
        weights=rng.uniform(0.5, 2.0, models),
    )


def _held(problem: Problem, seed: int) -> dict[str, Floats]:
    rng = np.random.default_rng(seed)
    return {
        name: np.concatenate([[1.0], np.sort(rng.uniform(0.3, 1.0, max(EVERY) - 1))[::-1]])
        for name in problem.models
    }


def _by_hand(problem: Problem, held: dict[str, Floats], run: tuple[int, ...]) -> float:
    """The accuracy of periods, 1 always and 0 never, input by input over all their phases."""
    active = np.array([every == 1 for every in run])
    quality = problem.qualities.of(active[None])[0]
    weights = problem.weights / problem.weights.sum()
    total = 0.0
    for n, every in enumerate(run):
        if every == 1:
            total += weights[n]
            continue
        ages = range(every) if every else [max(EVERY)]
        told, is_held = [], True
        for age in ages:
            share = 1.0 if age == 0 else 0.0 if not every else held[problem.models[n]][age]
            is_held = is_held and (age == 0 or share >= quality[n]) and bool(every)
            told.append(share if is_held else quality[n])
        total += weights[n] * float(np.mean(told))
    return float(total)


def _spent(problem: Problem, run: tuple[int, ...]) -> Floats:
    active = np.array([every == 1 for every in run])
    cost = problem.cost(active[None])[0].copy()
    for n, every in enumerate(run):
        if every > 1:
            cost += [problem.costs[n, 0], problem.costs[n, 1] / every]
    made: Floats = cost
    return made


@pytest.mark.parametrize("seed", range(12))
def test_it_keeps_budgets_and_comes_close_to_the_best_of_all_periods(seed: int) -> None:
    memory = 1e6 if seed % 2 else 1.6
    problem = _problem(seed, memory=memory)
    held = _held(problem, seed)
    found = refreshed(problem, held, every=EVERY)
    run = tuple(
        1 if name in found.active else found.refresh[name].every if name in found.refresh else 0
        for name in problem.models
    )
    spent = _spent(problem, run)
    assert (spent <= problem.budget + 1e-9).all()
    assert found.cost == pytest.approx({"memory_mib": spent[0], "latency_ms": spent[1]})
    assert found.expected_accuracy == pytest.approx(_by_hand(problem, held, run))
    best = max(
        _by_hand(problem, held, each)
        for each in itertools.product((0, 1, *EVERY), repeat=len(problem.models))
        if (_spent(problem, each) <= problem.budget + 1e-9).all()
    )
    assert best - 0.02 <= found.expected_accuracy <= best + 1e-9
    assert found.expected_accuracy >= choose(problem, "exact").expected_accuracy


def test_where_nothing_holds_it_is_worth_what_running_is_worth() -> None:
    problem = _problem(3)
    never = {name: np.array([1.0, *[0.0] * 4]) for name in problem.models}
    found = refreshed(problem, never, every=EVERY)
    assert all(one.held == () for one in found.refresh.values())
    always = {name: np.ones(5) for name in problem.models}
    still = refreshed(problem, always, every=EVERY)
    assert still.expected_accuracy == pytest.approx(1.0)
    assert still.expected_accuracy > found.expected_accuracy


def test_many_models_are_planned_within_the_budget() -> None:
    problem = _problem(1, models=14)
    found = refreshed(problem, _held(problem, 1), every=EVERY)
    assert found.cost["latency_ms"] <= problem.budget[1] * (1 + 1e-9)
    assert found.expected_accuracy >= choose(problem).expected_accuracy


def test_agreement_by_age_is_that_of_rows_of_one_stretch() -> None:
    count = Vec("regression", 1, tolerance=0.5)
    said = np.array([0, 0, 1, 1, 1, 5, 5, 6], np.float32)[:, None]
    recorded = check_recorded({"count": count}, {"count": said})
    stretch = np.array([0, 0, 0, 0, 0, 1, 1, 1])
    found = held_agreement(recorded, stretch, most=4, doubt=0.0)["count"]
    # Age 1: 0=0, 0-1, 1=1, 1=1, 5=5, 5-6. Age 2: 0-1, 0-1, 1=1, 5-6. Age 3: 0-1, 0-1.
    assert found.tolist() == [1.0, 4 / 6, 1 / 4, 0.0]
    doubted = held_agreement(recorded, stretch, most=6)["count"]
    assert doubted.tolist() == [1.0, 4 / 7, 1 / 5, 0.0, 0.0, 0.0]


def test_what_cannot_be_is_refused() -> None:
    problem = _problem(0)
    with pytest.raises(SettingsError, match="shares of 5 ages"):
        refreshed(problem, {name: np.ones(4) for name in problem.models}, every=EVERY)
    with pytest.raises(SettingsError, match="one of 3 inputs"):
        Refresh(3, (0.9, 0.9, 0.9))
