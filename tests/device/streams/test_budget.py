"""The budget is never exceeded by more than one closure, whatever is asked for."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from triparty.device.streams.budget import Demand, TokenBucket, unmet

COSTS = st.lists(st.floats(0.001, 400), max_size=12)
ROUNDS = st.lists(COSTS, min_size=1, max_size=60)


@given(st.floats(0.5, 50), ROUNDS)
def test_charged_cost_exceeds_the_budget_by_one_closure_at_most(
    round_ms: float, rounds: list[list[float]]
) -> None:
    bucket = TokenBucket(round_ms)
    charged = largest = 0.0
    for number, costs in enumerate(rounds, start=1):
        bucket.begin_round()
        for cost in costs:
            if bucket.admits(cost):
                bucket.charge(cost)
                charged += cost
                largest = max(largest, cost)
        assert charged <= number * round_ms + largest + 1e-6
        assert largest <= bucket.second_ms
        assert bucket.debt <= largest + 1e-6


@given(
    st.floats(0.5, 50),
    st.lists(st.lists(st.tuples(st.floats(0.01, 200), st.floats(0.2, 4)), max_size=8)),
)
def test_measured_cost_exceeds_the_budget_by_one_closure_at_most(
    round_ms: float, rounds: list[list[tuple[float, float]]]
) -> None:
    """However wrong the estimates are, for they are settled before the next is admitted."""
    bucket = TokenBucket(round_ms)
    measured = largest = 0.0
    for number, costs in enumerate(rounds, start=1):
        bucket.begin_round()
        for cost, error in costs:
            if bucket.admits(cost):
                bucket.charge(cost)
                bucket.settle(cost, cost * error)
                measured += cost * error
                largest = max(largest, cost * error)
        assert measured <= number * round_ms + largest + 1e-6
    assert bucket.counters.measured == pytest.approx(measured)


@pytest.mark.parametrize("error", [0.4, 1.0, 2.5])
def test_a_busy_minute_stays_within_five_percent(error: float) -> None:
    """Estimates are off by a factor; measured CPU follows the budget from both sides."""
    rng = random.Random(3)
    bucket = TokenBucket(20.0)
    measured = 0.0
    for _ in range(1500):
        bucket.begin_round()
        for _ in range(100):
            cost = rng.expovariate(1 / 8)
            if not bucket.admits(cost):
                break
            bucket.charge(cost)
            bucket.settle(cost, cost * error)
            measured += cost * error
    assert measured == pytest.approx(1500 * 20.0, rel=0.05)


def test_unused_budget_is_kept_for_a_second() -> None:
    bucket = TokenBucket(10.0, rounds_per_second=5)
    for _ in range(20):
        bucket.begin_round()
    assert bucket.spendable == 50
    assert bucket.counters.lapsed == 150
    assert bucket.admits(50)
    assert not bucket.admits(50.1)
    with pytest.raises(ValueError, match="not admitted"):
        bucket.charge(51)


def test_a_debt_is_paid_before_anything_is_admitted() -> None:
    bucket = TokenBucket(10.0)
    bucket.begin_round()
    bucket.charge(35)
    assert bucket.debt == 25
    for _ in range(2):
        bucket.begin_round()
        assert not bucket.admits(1)
        assert bucket.spendable == 0
    bucket.begin_round()
    assert bucket.spendable == pytest.approx(5)


def test_no_budget_is_refused() -> None:
    with pytest.raises(ValueError, match="above 0"):
        TokenBucket(0)


def test_streams_that_cannot_be_looked_at_often_enough_are_named() -> None:
    cheap = [Demand(f"cheap-{n}", look_ms=10, staleness_s=1) for n in range(5)]
    dear = Demand("dear", look_ms=60, staleness_s=1)
    huge = Demand("huge", look_ms=200, staleness_s=60)
    assert unmet([*cheap, dear], 110) == []
    assert unmet([dear, *cheap], 100) == ["dear"]
    assert unmet([huge, *cheap], 100) == ["huge"]  # above a second's budget
    assert unmet([*cheap, dear, huge], 30) == ["dear", "cheap-4", "cheap-3", "huge"]


@given(
    st.lists(st.tuples(st.floats(0.1, 300), st.floats(0.1, 30)), max_size=20),
    st.floats(1, 500),
)
def test_the_promises_that_are_kept_fit_the_budget(
    demands: list[tuple[float, float]], second_ms: float
) -> None:
    every = [Demand(str(n), cost, seconds) for n, (cost, seconds) in enumerate(demands)]
    named = unmet(every, second_ms)
    kept = [one for one in every if one.name not in named]
    assert sum(one.rate for one in kept) <= second_ms + 1e-6
    for one in every:
        if one.name in named and one.look_ms <= second_ms:
            assert sum(other.rate for other in kept) + one.rate > second_ms - 1e-6
