"""Choosing under a budget: the laws of each leftover policy."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from triparty.common.errors import SettingsError
from triparty.device.gate.optimizer import LEFTOVERS, choose

SIZES = st.integers(0, 24)


@st.composite
def rounds(draw: st.DrawFn, largest: int = 24) -> tuple[np.ndarray, np.ndarray, float]:
    """Values, costs and a budget; whole numbers, so that sums are exact."""
    count = draw(st.integers(0, largest))
    value = st.one_of(
        st.integers(0, 9).map(float), st.just(-np.inf), st.sampled_from([np.inf, 1e9])
    )
    values = draw(st.lists(value, min_size=count, max_size=count))
    costs = draw(st.lists(st.integers(0, 9).map(float), min_size=count, max_size=count))
    return np.array(values), np.array(costs), float(draw(st.integers(0, 60)))


@given(rounds(), st.sampled_from(LEFTOVERS))
def test_the_budget_is_never_exceeded_but_by_one_item_of_the_printed_loop(
    given_round: tuple[np.ndarray, np.ndarray, float], leftover: str
) -> None:
    value, cost, budget = given_round
    choice = choose(value, cost, budget, leftover=leftover)
    assert choice.cost == cost[choice.picks].sum()
    if leftover == "paper" and len(choice.picks):
        assert cost[choice.picks[:-1]].sum() < budget
    else:
        assert choice.cost + choice.leftover <= budget
    assert len(set(choice.picks.tolist())) == len(choice.picks)
    assert (value[choice.picks] > 0).all()


@given(rounds(), st.sampled_from(LEFTOVERS))
def test_the_same_round_gives_the_same_choice(
    given_round: tuple[np.ndarray, np.ndarray, float], leftover: str
) -> None:
    value, cost, budget = given_round
    first = choose(value, cost, budget, leftover=leftover)
    second = choose(value.copy(), cost.copy(), budget, leftover=leftover)
    assert first.picks.tolist() == second.picks.tolist()
    assert first.invested == second.invested


@given(rounds())
def test_scanning_is_the_one_by_one_greedy_or_better(
    given_round: tuple[np.ndarray, np.ndarray, float],
) -> None:
    value, cost, budget = given_round
    order = [
        i
        for i in sorted(range(len(value)), key=lambda i: -(value[i] / max(cost[i], 1e-9)))
        if value[i] > 0
    ]
    left, expected = budget, []
    for i in order:
        if cost[i] <= left:
            expected.append(i)
            left -= cost[i]
    choice = choose(value, cost, budget)
    fitting = [i for i in order if cost[i] <= budget]
    best = max((value[i] for i in fitting), default=0.0)
    if best <= value[expected].sum():
        assert choice.picks.tolist() == expected
    else:
        assert value[choice.picks].sum() >= best


@given(rounds(largest=9))
def test_scanning_is_worth_at_least_half_of_the_best_set(
    given_round: tuple[np.ndarray, np.ndarray, float],
) -> None:
    value, cost, budget = given_round
    value = np.minimum(value, 20.0)
    worth = [i for i in range(len(value)) if value[i] > 0]
    subsets = itertools.chain.from_iterable(
        itertools.combinations(worth, size) for size in range(len(worth) + 1)
    )
    optimum = max(
        value[list(s)].sum() for s in map(np.array, subsets) if s_cost(cost, s) <= budget
    )
    picked = choose(value, cost, budget).picks
    assert value[picked].sum() >= optimum / 2


def s_cost(cost: np.ndarray, subset: np.ndarray) -> float:
    return float(cost[subset.astype(np.int64)].sum())


def test_half_is_not_reached_without_the_look_at_the_best_single_offer() -> None:
    value, cost = np.array([2.0, 10.0]), np.array([1.0, 10.0])
    assert choose(value, cost, 10.0, leftover="stop").picks.tolist() == [0]
    assert choose(value, cost, 10.0).picks.tolist() == [1]


def test_the_printed_loop_overshoots_where_stopping_does_not() -> None:
    value, cost = np.array([3.0, 2.0, 1.0]), np.array([4.0, 4.0, 4.0])
    assert choose(value, cost, 6.0, leftover="paper").picks.tolist() == [0, 1]
    assert choose(value, cost, 6.0, leftover="stop").picks.tolist() == [0]
    assert choose(value, cost, 8.0, leftover="paper").picks.tolist() == [0, 1]


def test_scanning_goes_on_behind_the_first_misfit() -> None:
    value, cost = np.array([9.0, 8.0, 1.0]), np.array([4.0, 4.0, 2.0])
    assert choose(value, cost, 6.0, leftover="stop").picks.tolist() == [0]
    assert choose(value, cost, 6.0).picks.tolist() == [0, 2]


def test_a_prefix_is_bought_of_the_chain_that_did_not_fit() -> None:
    choice = choose(np.array([9.0, 8.0]), np.array([4.0, 4.0]), 6.0, leftover="prefix")
    assert choice.picks.tolist() == [0]
    assert (choice.invested, choice.leftover) == (1, 2.0)
    assert choose(np.ones(1), np.ones(1), 6.0, leftover="prefix").invested is None


def test_ties_go_to_the_stalest_and_then_to_the_first() -> None:
    value, cost = np.full(4, np.inf), np.ones(4)
    staleness = np.array([1.0, 5.0, 5.0, 2.0])
    assert choose(value, cost, 3.0, staleness=staleness).picks.tolist() == [1, 2, 3]
    assert choose(value, cost, 3.0).picks.tolist() == [0, 1, 2]


def test_what_is_worth_nothing_is_left_out_even_if_it_is_free() -> None:
    assert len(choose(np.array([0.0, -np.inf]), np.zeros(2), 9.0).picks) == 0


def test_an_unknown_leftover_is_refused() -> None:
    with pytest.raises(SettingsError, match="expected paper, stop, scan, prefix"):
        choose(np.ones(1), np.ones(1), 1.0, leftover="all")
