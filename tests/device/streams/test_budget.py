"""The budget is never exceeded by more than one closure, whatever is asked for."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from triparty.device.streams.budget import TokenBucket

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
    for _ in range(2):
        bucket.begin_round()
        assert not bucket.admits(1)
        assert bucket.spendable == 0
    bucket.begin_round()
    assert bucket.spendable == pytest.approx(5)


def test_no_budget_is_refused() -> None:
    with pytest.raises(ValueError, match="above 0"):
        TokenBucket(0)
