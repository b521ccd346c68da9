"""The temporal estimators against one stream at a time in plain Python."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from triparty.device.gate.estimator import DiscountedEstimator, PaperEstimator

STREAMS = 4
# A round: which streams are chosen, with what reward, and how many rounds later it comes.
ROUND = st.dictionaries(
    st.integers(0, STREAMS - 1),
    st.tuples(st.sampled_from([0.0, 0.5, 1.0]), st.integers(0, 4)),
    max_size=STREAMS,
)


class SlowPaper:
    """The printed formula for one stream, from its whole history."""

    def __init__(self, window: int, horizon: int) -> None:
        self.window, self.horizon = window, horizon
        self.chosen: list[bool] = []
        self.reward: list[float] = []

    def estimate(self) -> float:
        last = slice(max(0, len(self.chosen) - self.window), None)
        count = sum(self.chosen[last])
        mean = sum(self.reward[last]) / self.window
        if count == 0:
            return math.inf
        return mean + math.sqrt(3 * math.log(self.horizon) / (2 * count))


@given(st.lists(ROUND, max_size=30), st.integers(1, 6))
def test_the_printed_formula_is_the_one_of_a_stream_alone(
    rounds: list[dict[int, tuple[float, int]]], window: int
) -> None:
    fast = PaperEstimator(window=window, horizon=1000)
    fast.grow(STREAMS)
    slow = [SlowPaper(window, 1000) for _ in range(STREAMS)]
    late: list[tuple[int, int, int, float]] = []  # due, stream, round, reward
    for number, chosen in enumerate(rounds):
        np.testing.assert_allclose(fast.estimate(), [one.estimate() for one in slow])
        picked = np.array(sorted(chosen), np.int64)
        fast.chosen(picked, np.full(len(picked), float(number)))
        for stream, one in enumerate(slow):
            one.chosen.append(stream in chosen)
            one.reward.append(0.0)
        late += [(number + delay, s, number, r) for s, (r, delay) in chosen.items()]
        for _, stream, when, reward in [item for item in late if item[0] == number]:
            fast.learn(
                np.array([stream]),
                np.array([float(when)]),
                np.array([reward]),
                np.array([True]),
            )
            slow[stream].reward[when] = reward


@given(st.lists(ROUND, max_size=30), st.floats(0.5, 1.0), st.booleans())
def test_discounted_counts_are_those_of_a_stream_alone(
    rounds: list[dict[int, tuple[float, int]]], discount: float, dependencies: bool
) -> None:
    fast = DiscountedEstimator(discount=discount, scale=0.1, dependencies=dependencies)
    fast.grow(STREAMS)
    observed = [[0.0, 0.0, 0.0] for _ in range(STREAMS)]  # sum, observations, choices
    for number, chosen in enumerate(rounds):
        expected = [
            (s + 0.5) / (n + 1.5) + 0.1 * math.sqrt(3 * math.log(number + 1) / (2 * (t + 1)))
            for s, n, t in observed
        ]
        np.testing.assert_allclose(fast.estimate(), expected)
        picked = np.array(sorted(chosen), np.int64)
        fast.chosen(picked, np.zeros(len(picked)))
        rewards = np.array([chosen[s][0] for s in picked])
        selected = np.array([chosen[s][1] > 1 for s in picked], bool)
        fast.learn(picked, np.zeros(len(picked)), rewards, selected)
        for stream in range(STREAMS):
            observed[stream] = [discount * value for value in observed[stream]]
            if stream in chosen:
                observed[stream][2] += 1
        for stream, reward, was_selected in zip(picked, rewards, selected, strict=True):
            if was_selected or dependencies:
                observed[stream][0] += reward
                observed[stream][1] += 1


def test_who_was_never_chosen_is_infinite_on_paper_and_never_by_default() -> None:
    paper, ours = PaperEstimator(), DiscountedEstimator()
    for estimator in (paper, ours):
        estimator.grow(2)
        for number in range(10):
            estimator.chosen(np.array([0]), np.array([float(number)]))
    assert np.isfinite(paper.estimate()).tolist() == [True, False]
    assert np.isfinite(ours.estimate()).all()
    assert ours.estimate()[1] > ours.estimate()[0]


def test_the_printed_bonus_exceeds_every_possible_mean() -> None:
    paper = PaperEstimator(window=5, horizon=90_000)
    paper.grow(1)
    for number in range(5):
        paper.chosen(np.array([0]), np.array([float(number)]))
    assert paper.estimate()[0] == pytest.approx(math.sqrt(3 * math.log(90_000) / 10))
    assert paper.estimate()[0] > 1
    assert paper.largest == pytest.approx(1 + math.sqrt(1.5 * math.log(90_000)))


def test_the_default_bonus_stays_below_half() -> None:
    ours = DiscountedEstimator()
    ours.grow(1)
    for _ in range(5000):
        ours.chosen(np.array([], np.int64), np.zeros(0))
    assert 0 < ours.estimate()[0] - ours.mean()[0] < 0.5


def test_unobserved_rounds_lower_the_printed_mean_alone() -> None:
    paper, ours = PaperEstimator(horizon=2), DiscountedEstimator(scale=0.0, prior=(0.0, 1e-9))
    for estimator in (paper, ours):
        estimator.grow(1)
        estimator.chosen(np.array([0]), np.array([0.0]))
        estimator.learn(np.array([0]), np.zeros(1), np.ones(1), np.array([True]))
        for _ in range(3):
            estimator.chosen(np.array([], np.int64), np.zeros(0))
    bonus = math.sqrt(1.5 * math.log(2))
    assert paper.estimate()[0] - bonus == pytest.approx(1 / 5)
    assert ours.estimate()[0] == pytest.approx(1.0)


def test_a_picture_decoded_for_others_is_no_choice_on_paper() -> None:
    paper = PaperEstimator()
    paper.grow(1)
    paper.chosen(np.array([0]), np.array([0.0]))
    before = paper.estimate().copy()
    paper.learn(np.array([0]), np.zeros(1), np.ones(1), np.array([False]))
    np.testing.assert_array_equal(paper.estimate(), before)


def test_a_row_that_is_used_again_begins_anew() -> None:
    for estimator in (PaperEstimator(), DiscountedEstimator()):
        estimator.grow(1)
        fresh = estimator.estimate().copy()
        estimator.chosen(np.array([0]), np.array([0.0]))
        estimator.learn(np.array([0]), np.zeros(1), np.ones(1), np.array([True]))
        assert estimator.estimate()[0] != fresh[0]
        estimator.forget(np.array([0]))
        estimator.grow(3)
        assert len(estimator.estimate()) == 3
        if isinstance(estimator, PaperEstimator):
            np.testing.assert_array_equal(estimator.estimate(), np.inf)
        else:
            np.testing.assert_allclose(estimator.mean(), 1 / 3)
