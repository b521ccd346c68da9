"""Plans keep every budget, come close to the best there is, and mean what the thesis says."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from triparty.common.errors import SettingsError
from triparty.common.links.planning.activation import activation_probability
from triparty.common.links.planning.greedy import greedy
from triparty.common.links.planning.plan import Method, choose, planned, single_links
from triparty.common.links.planning.problem import Floats, Mask, Problem, Resource, with_each
from triparty.common.links.planning.qualities import MeasuredQualities, PairQualities
from triparty.common.links.planning.reselection import Hysteresis, profiled_inputs, reselect

METHODS: tuple[Method, ...] = ("auto", "greedy", "exact", "activation")
MEMORY, LATENCY = Resource("memory", "MB"), Resource("latency", "ms")
PEAK = Resource("memory", "MB", "peak")


def _names(count: int) -> tuple[str, ...]:
    return tuple(f"model-{number}" for number in range(count))


def _random(seed: int, count: int = 8, share: float = 0.5) -> Problem:
    """Two budgets, links that cost something, some of them missing."""
    rng = np.random.default_rng(seed)
    pairs = np.where(
        rng.random((count, count)) < 0.8, rng.beta(0.5, 0.5, (count, count)), np.nan
    )
    costs = rng.uniform(0.1, 1.0, (count, 2))
    return Problem(
        _names(count),
        PairQualities(pairs, constant=rng.uniform(0, 0.3, count)),
        (MEMORY, LATENCY) if seed % 2 else (PEAK, LATENCY),
        costs,
        share * np.array([costs[:, 0].sum() if seed % 2 else 1.0, costs[:, 1].sum()]),
        link_costs=rng.uniform(0, 0.03, (count, count, 2)),
        weights=rng.uniform(0.5, 2.0, count),
    )


def _simulated(seed: int, draw: str, share: float = 0.5) -> Problem:
    """The thesis's simulation (5.5.5): 10 models, an ensemble gain of 0.02, one budget."""
    rng = np.random.default_rng(seed)
    made = {
        "normal": lambda size: np.clip(rng.normal(0.5, 0.2, size), 0.01, 1.0),
        "beta": lambda size: np.clip(rng.beta(0.5, 0.5, size), 0.01, 1.0),
    }[draw]
    costs = made((10, 1))
    pairs = PairQualities(made((10, 10)))
    return Problem(_names(10), pairs, (MEMORY,), costs, share * costs.sum(axis=0))


def _slow(problem: Problem, active: tuple[int, ...]) -> tuple[float, list[float]]:
    """Accuracy and costs of a set, added up one by one."""
    pairs: Any = problem.qualities
    right, weights = 0.0, 0.0
    costs: list[list[float]] = [[0.0] for _ in problem.resources]
    for target in range(len(problem.models)):
        weight = float(problem.weights[target])
        weights += weight
        if target in active:
            right += weight
            for k in range(len(costs)):
                costs[k].append(float(problem.costs[target, k]))
            continue
        known = [i for i in active if not np.isnan(pairs.pairs[i, target])]
        quality = float(pairs.constant[target])
        if known:
            quality = max(float(pairs.pairs[i, target]) for i in known)
            quality = min(1.0, quality + (pairs.gain if len(known) > 1 else 0.0))
        right += weight * quality
        for i in known:
            for k in range(len(costs)):
                costs[k].append(float(problem.link_costs[i, target, k]))
    total = [
        max(each) if resource.combine == "peak" else sum(each)
        for resource, each in zip(problem.resources, costs, strict=True)
    ]
    return right / weights, total


def _mask(problem: Problem, names: tuple[str, ...]) -> Mask:
    return np.array([name in names for name in problem.models])


@given(seed=st.integers(0, 10_000), share=st.floats(0.0, 1.0), method=st.sampled_from(METHODS))
@settings(max_examples=60, deadline=None)
def test_no_budget_is_exceeded(seed: int, share: float, method: Method) -> None:
    problem = _random(seed, 6, share)
    plan = choose(problem, method)
    places = tuple(problem.models.index(name) for name in plan.active)
    accuracy, costs = _slow(problem, places)
    for resource, cost, budget in zip(problem.resources, costs, problem.budget, strict=True):
        assert cost <= budget * (1 + 1e-6) + 1e-12
        assert plan.cost[resource.name] == pytest.approx(cost)
    assert plan.expected_accuracy == pytest.approx(accuracy)
    assert set(plan.models) == set(problem.models)


@pytest.mark.parametrize("seed", range(6))
def test_the_exact_plan_is_the_best_of_all_sets_one_by_one(seed: int) -> None:
    problem = _random(seed, 6)
    best = 0.0
    for count in range(7):
        for active in itertools.combinations(range(6), count):
            accuracy, costs = _slow(problem, active)
            if all(c <= b * (1 + 1e-9) for c, b in zip(costs, problem.budget, strict=True)):
                best = max(best, accuracy)
    assert choose(problem, "exact").expected_accuracy == pytest.approx(best)


def test_sets_that_are_looked_at_in_parts_give_the_same_optimum(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    at_once = [choose(_random(seed, 6), "exact").active for seed in range(4)]
    monkeypatch.setattr("triparty.common.links.planning.exact._AT_ONCE", 4)
    assert [choose(_random(seed, 6), "exact").active for seed in range(4)] == at_once


@pytest.mark.parametrize("draw", ["normal", "beta"])
def test_greedy_comes_close_to_the_optimum_and_is_above_the_thesis_ranking(
    draw: str,
) -> None:
    found: dict[str, list[float]] = {"exact": [], "greedy": [], "activation": []}
    for seed in range(12):
        problem = _simulated(seed, draw)
        for method in ("exact", "greedy", "activation"):
            found[method].append(choose(problem, method).expected_accuracy)  # type: ignore[arg-type]
    mean = {method: float(np.mean(each)) for method, each in found.items()}
    assert mean["exact"] - mean["greedy"] < 0.002
    assert max(np.subtract(found["exact"], found["greedy"])) < 0.02
    assert mean["greedy"] > mean["activation"]


def test_the_exact_plan_never_falls_as_the_budget_grows() -> None:
    for seed in (1, 2, 3):
        accuracies = [
            choose(_random(seed, 7, share), "exact").expected_accuracy
            for share in np.linspace(0, 1, 12)
        ]
        assert accuracies == sorted(accuracies)


def test_a_larger_budget_hardly_ever_costs_the_greedy_plan_anything() -> None:
    falls = []
    for seed in range(8):
        accuracies = [
            choose(_simulated(seed, "normal", share), "greedy").expected_accuracy
            for share in np.linspace(0.05, 1, 12)
        ]
        falls += np.maximum(-np.diff(accuracies), 0).tolist()
        assert accuracies[-1] == 1.0
    assert max(falls) < 0.01


def test_activation_probabilities_by_hand() -> None:
    pairs = np.array([[np.nan, 0.8, 0.4], [0.5, np.nan, 0.9], [0.1, np.nan, np.nan]])
    # From the models: 0.6, 0.7, 0.05; to them: 0.3, 0.4, 0.65; w = 2 / 2 = 1.
    expected = [1.3 / 2.0, 1.3 / 4.0, 0.4 / 5.0]
    assert activation_probability(pairs, np.array([2.0, 4.0, 5.0])) == pytest.approx(expected)


def test_the_largest_activation_probability_is_one() -> None:
    pairs = np.array([[0.0, 1.0], [0.0, 0.0]])
    assert activation_probability(pairs, np.array([3.0, 3.0])).tolist() == [1.0, 0.0]
    with pytest.raises(SettingsError, match="above 0"):
        activation_probability(pairs, np.array([0.0, 1.0]))


def test_links_count_against_the_budget() -> None:
    pairs = np.full((2, 2), 0.9)
    free = Problem(
        _names(2), PairQualities(pairs), (LATENCY,), np.full((2, 1), 1.0), np.ones(1)
    )
    assert len(choose(free).active) == 1
    dear = Problem(
        _names(2),
        PairQualities(pairs),
        (LATENCY,),
        np.full((2, 1), 1.0),
        np.ones(1),
        link_costs=np.full((2, 2, 1), 0.1),
    )
    assert choose(dear).active == ()


def test_each_of_several_budgets_binds() -> None:
    costs = np.array([[1.0, 9.0], [9.0, 1.0], [1.0, 1.0]])
    for budget, active in (((9, 1), "model-1"), ((1, 9), "model-0"), ((1, 1), "model-2")):
        problem = Problem(
            _names(3),
            PairQualities(np.full((3, 3), 0.5)),
            (MEMORY, LATENCY),
            costs,
            np.array(budget, float),
            weights=np.array([3.0, 3.0, 1.0]),
        )
        assert choose(problem).active == (active,)


def test_adding_each_model_at_once_is_adding_it_by_itself() -> None:
    for seed in range(5):
        problem = _random(seed)
        active = np.random.default_rng(seed).random(8) < 0.4
        pairs = problem.qualities
        each = pairs.of(with_each(active))
        assert np.where(with_each(active), 0, pairs.with_each(active)) == pytest.approx(
            np.where(with_each(active), 0, each)
        )


def test_a_model_that_spoils_what_others_predict_is_not_added() -> None:
    class Spoiling(PairQualities):
        """The second model makes the prediction of the third useless."""

        def of(self, active: Mask) -> Floats:
            found: Floats = super().of(active)
            found[active[:, 1], 2] = 0.0
            return found

        def with_each(self, active: Mask) -> Floats:
            return self.of(with_each(active))

    pairs = np.array([[0, 0.95, 0.99], [0.9, 0, 0], [0.1, 0.1, 0]])
    costs = np.array([[1.0], [1.0], [9.0]])
    problem = Problem(_names(3), Spoiling(pairs), (MEMORY,), costs, np.array([3.0]))
    assert choose(problem, "greedy").active == choose(problem, "exact").active == ("model-0",)


def test_qualities_are_measured_on_the_ensemble_of_the_sources_that_run() -> None:
    rng = np.random.default_rng(0)
    left, right = rng.integers(0, 2, 400), rng.integers(0, 2, 400)
    outputs = {"left": left, "right": right, "both": left ^ right}
    asked: list[frozenset[str]] = []

    def predict(target: str, given: Any) -> Any:
        asked.append(frozenset(given))
        if set(given) == {"left", "right"}:
            return given["left"] ^ given["right"]
        return next(iter(given.values()))

    qualities = MeasuredQualities(
        list(outputs),
        outputs,
        np.array([[0, 0, 1], [0, 0, 1], [0, 0, 0]], bool),
        predict,
        lambda _, made, own: float((made == own).mean()),
    )
    problem = Problem(
        ("left", "right", "both"), qualities, (MEMORY,), np.ones((3, 1)), np.array([2.0])
    )
    plan = choose(problem)
    assert plan.active == ("left", "right")
    assert plan.expected_accuracy == pytest.approx(1.0, abs=1e-3)
    assert plan.predicted == {"both": ("left", "right")}
    alone = single_links(problem)
    assert 0.4 < alone[0, 2] < 0.6
    assert np.isnan(alone[0, 1])
    assert asked.count(frozenset({"left", "right"})) == 1


@pytest.mark.parametrize(("doubt", "active"), [(1.0, ("a", "b")), (0.0, ("a",))])
def test_what_fits_is_run_rather_than_predicted_without_fault_on_a_few_rows(
    doubt: float, active: tuple[str, ...]
) -> None:
    rows = np.ones(5)
    qualities = MeasuredQualities(
        ("a", "b"),
        {"a": rows, "b": rows},
        np.array([[False, True], [False, False]]),
        lambda _, given: given["a"],
        lambda _, made, own: float((made == own).mean()),
        doubt=doubt,
    )
    problem = Problem(("a", "b"), qualities, (MEMORY,), np.ones((2, 1)), np.array([2.0]))
    assert choose(problem).active == active


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"models": ("a", "a")}, "different names"),
        ({"costs": np.ones((2, 2))}, r"costs: expected shape \(2, 1\)"),
        ({"budget": np.array([-1.0])}, "budget: expected finite"),
        ({"costs": np.array([[np.nan], [1.0]])}, "costs: expected finite"),
        ({"weights": np.zeros(2)}, "at least one model must count"),
    ],
)
def test_what_cannot_be_a_problem_is_refused(change: dict[str, Any], says: str) -> None:
    parts: dict[str, Any] = {
        "models": ("a", "b"),
        "qualities": PairQualities(np.zeros((2, 2))),
        "resources": (MEMORY,),
        "costs": np.ones((2, 1)),
        "budget": np.ones(1),
    }
    Problem(**parts)
    with pytest.raises(SettingsError, match=says):
        Problem(**parts | change)


def test_a_plan_over_its_budget_is_refused() -> None:
    problem = _simulated(0, "normal", 0.2)
    with pytest.raises(SettingsError, match="do not fit"):
        planned(problem, np.ones(10, bool), "greedy")


def test_the_greedy_plan_of_a_hundred_models_keeps_two_budgets() -> None:
    rng = np.random.default_rng(4)
    costs = rng.uniform(0.1, 1, (100, 2))
    problem = Problem(
        _names(100),
        PairQualities(rng.random((100, 100))),
        (MEMORY, LATENCY),
        costs,
        0.3 * costs.sum(axis=0),
    )
    assert problem.fits(greedy(problem)[None])[0]


def _two(first: float, budget: float = 1.0) -> Problem:
    """Two models that cost 1; the first predicts the second as given, the second 0.8."""
    pairs = np.array([[0.0, first], [0.8, 0.0]])
    return Problem(
        _names(2), PairQualities(pairs), (MEMORY,), np.ones((2, 1)), np.array([budget])
    )


def _changes(hysteresis: Hysteresis) -> int:
    """How often models are exchanged over 50 periods in which one is hardly better."""
    rng = np.random.default_rng(1)
    active: tuple[str, ...] = ("model-1",)
    changes = 0
    for _ in range(50):
        decision = reselect(
            active, _two(0.8 + rng.normal(0, 0.01)), hysteresis, load_s={"model-0": 0.1}
        )
        active, changes = decision.plan.active, changes + decision.changed
    return changes


def test_chance_does_not_exchange_models_and_without_hysteresis_it_does() -> None:
    assert _changes(Hysteresis(period_s=3600, least_gain=0.02)) <= 1
    assert _changes(Hysteresis(period_s=3600, least_gain=0.0)) > 10


def test_a_real_gain_exchanges_models_unless_loading_takes_too_long() -> None:
    patient = Hysteresis(period_s=60, least_gain=0.01)
    better = reselect(("model-1",), _two(1.0), patient, load_s={"model-0": 2.0})
    assert better.changed
    assert better.plan.active == ("model-0",)
    assert better.gain == pytest.approx(0.1)
    slow = reselect(
        ("model-1",), _two(1.0), patient, load_s={"model-0": 4.0}, unload_s={"model-1": 2.0}
    )
    assert not slow.changed
    assert slow.plan.active == ("model-1",)
    assert slow.swap_s == 6.0


def test_models_over_the_budget_are_changed_whatever_that_takes() -> None:
    decision = reselect(
        ("model-0", "model-1"), _two(1.0), Hysteresis(1.0, 1.0), load_s={"model-0": 99.0}
    )
    assert decision.changed
    assert decision.plan.active == ("model-0",)


def test_a_hundredth_of_the_inputs_is_profiled_but_not_too_few() -> None:
    assert profiled_inputs(10_000) == 100
    assert profiled_inputs(1000) == 30
    assert profiled_inputs(12) == 12
