"""How fast answers change, learned from looks at any distance; and the price of a budget."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from triparty.device.gate.base import EntryClock
from triparty.device.gate.drift import Drift
from triparty.device.gate.freshness import Freshness, Price
from triparty.device.gate.policy import Arrivals, Feedback


@pytest.mark.parametrize("rate", [0.02, 0.2, 1.0])
@pytest.mark.parametrize("gap", [0.04, 1.0])
def test_the_true_rate_is_found_from_looks_at_any_distance(rate: float, gap: float) -> None:
    rng = np.random.default_rng(0)
    drift = Drift(memory=1e9)
    drift.grow(1)
    looks, row = round(max(40 / rate, 40.0) / gap), np.array([0])
    changed = rng.random(looks) < 1 - np.exp(-rate * gap)
    for number in range(looks):
        drift.learn(row, np.array([number * gap]), np.array([float(changed[number])]))
    assert drift.rate(row)[0] == pytest.approx(rate, rel=0.35)
    ahead = looks * gap - gap + 2.0
    assert drift.wrong(row, np.array([ahead]))[0] == pytest.approx(
        1 - np.exp(-2 * rate), rel=0.35
    )


def test_a_new_stream_is_taken_to_be_as_the_others_are() -> None:
    drift = Drift()
    drift.grow(3)
    for number in range(200):
        rows = np.array([0, 1])
        drift.learn(rows, np.full(2, float(number)), np.array([1.0, 0.0]))
    quiet, busy, new = drift.rate(np.array([1, 0, 2]))
    assert quiet < new < busy
    assert drift.wrong(np.array([2]), np.array([5.0])).tolist() == [1.0]


@given(
    st.lists(
        st.tuples(st.integers(0, 2), st.floats(0, 50), st.sampled_from([0.0, 0.5, 1.0])),
        max_size=40,
    )
)
def test_rates_are_positive_and_finite_whatever_comes(
    events: list[tuple[int, float, float]],
) -> None:
    drift = Drift()
    drift.grow(3)
    if events:
        stream, time, changed = (np.array(column) for column in zip(*events, strict=True))
        drift.learn(stream, time, changed)
    rate = drift.rate(np.arange(3))
    assert (rate > 0).all()
    assert np.isfinite(rate).all()
    wrong = drift.wrong(np.arange(3), np.full(3, 60.0))
    assert ((wrong >= 0) & (wrong <= 1)).all()


def test_looks_of_one_round_are_taken_in_order_of_time() -> None:
    together, apart = Drift(), Drift()
    for drift in (together, apart):
        drift.grow(2)
    stream, time = np.array([0, 1, 0, 0]), np.array([3.0, 1.0, 1.0, 2.0])
    changed = np.array([1.0, 1.0, 0.0, 0.0])
    together.learn(stream, time, changed)
    for place in (2, 3, 0, 1):
        one = slice(place, place + 1)
        apart.learn(stream[one], time[one], changed[one])
    np.testing.assert_allclose(together.rate(np.arange(2)), apart.rate(np.arange(2)), rtol=0.05)
    before = together.rate(np.array([0]))
    together.learn(np.array([0]), np.array([2.5]), np.ones(1))  # late: tells nothing of age
    np.testing.assert_array_equal(together.rate(np.array([0])), before)


def test_the_price_settles_where_spending_is_what_is_granted() -> None:
    rng = np.random.default_rng(0)
    price, saved, spent = Price(), 0.0, []
    granted, most = 2.0, 50.0
    for _ in range(6000):
        saved = min(saved + granted, most)
        ratio = rng.exponential(1.0, 20)
        picks = np.flatnonzero(ratio > price.value)[: int(saved)]  # each costs 1
        price.follow(ratio, picks, saved / most)
        saved -= len(picks)
        spent.append(len(picks))
    assert np.mean(spent[2000:]) == pytest.approx(granted, rel=0.05)
    assert price.value == pytest.approx(np.log(20 / granted), rel=0.3)


def test_without_word_of_what_is_saved_the_price_follows_what_did_not_fit() -> None:
    price = Price()
    ratio = np.array([3.0, 2.0, 1.0])
    for _ in range(200):
        price.follow(ratio, np.array([0]), np.nan)
    assert price.value > 1.0
    high = price.value
    for _ in range(200):
        price.follow(ratio, np.array([0, 1, 2]), np.nan)
    assert price.value < high


def test_the_next_entry_is_expected_a_period_after_the_last() -> None:
    clock, rows = EntryClock(), np.array([0])
    clock.grow(1)
    assert clock.period(rows)[0] == 2.0
    for time in (1.0, 3.0, 5.0):
        clock.see(entries(time))
    assert clock.period(rows)[0] == pytest.approx(2.0)
    assert clock.until(rows, np.array([5.5]))[0] == pytest.approx(1.5)
    assert clock.until(rows, np.array([9.0]))[0] == pytest.approx(1.0)  # overdue
    clock.forget(rows)
    assert np.isfinite(clock.until(rows, np.array([9.0]))).all()


def entries(time: float) -> Arrivals:
    one = np.ones(1)
    is_entry = np.ones(1, bool)
    return Arrivals(
        np.zeros(1, np.int64), one * time, one, np.ones(1, np.int8), is_entry, is_entry, one
    )


def test_the_drift_that_a_policy_is_given_is_the_one_that_learns() -> None:
    drift = Drift(prior=1e9)
    policy = Freshness(drift=drift)
    rows = policy.join(2)
    assert drift.wrong(rows, np.array([1.0, 1.0])).tolist() == [1.0, 1.0]
    policy.learn(Feedback(1.0, rows[:1], np.array([1.0]), np.array([[0.0]]), np.array([True])))
    wrong = drift.wrong(rows, np.array([1.0, 1.0]))
    assert wrong.tolist() == [0.0, 1.0]


def test_a_heavy_prior_makes_one_rate_of_all_streams() -> None:
    drift = Drift(prior=1e9)
    drift.grow(2)
    for number in range(200):
        drift.learn(np.array([0, 1]), np.full(2, float(number)), np.array([1.0, 0.0]))
    quiet, busy = drift.rate(np.array([1, 0]))
    assert quiet == pytest.approx(busy, rel=1e-5)
