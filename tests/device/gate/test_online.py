"""Weighing evidence while gating: what tells gains weight, what does not loses it."""

from __future__ import annotations

import numpy as np
import pytest
from synthetic_streams import Cameras, run

from triparty.device.gate.features import FeatureChoice
from triparty.device.gate.freshness import Freshness, Price
from triparty.device.gate.online import LARGEST_ODDS, Blend, log_odds
from triparty.device.gate.predictor import Network, Predictor, random_weights

ROWS = np.arange(20)


def learned(tells: tuple[bool, bool], rounds: int = 800) -> Blend:
    """A blend of two kinds of evidence that is asked and told the truth."""
    rng = np.random.default_rng(0)
    blend = Blend(2)
    blend.grow(len(ROWS))
    for number in range(rounds):
        truth = rng.random(len(ROWS)) < 0.3
        said = np.where(truth, 1.5, -1.5) + rng.normal(0, 1.0, len(ROWS))
        noise = rng.normal(0, 1.8, (len(ROWS), 2))
        evidence = np.where(tells, said[:, None], noise)
        time = np.full(len(ROWS), number / 25)
        blend.chosen(ROWS, time, evidence)
        blend.learn(ROWS, time, truth.astype(np.float64))
    return blend


def test_the_first_kind_counts_most_at_the_beginning() -> None:
    blend = Blend(3)
    evidence = np.array([[1.0, 2.0, -2.0], [-2.0, 2.0, 2.0]])
    expected = 1 / (1 + np.exp([-0.8, 1.2]))
    np.testing.assert_allclose(blend.probabilities(evidence), expected)


def test_evidence_that_tells_gains_what_noise_loses() -> None:
    right = learned((False, True)).weights
    assert right[1] > 0.5
    assert abs(right[0]) < 0.3
    kept = learned((True, False)).weights
    assert kept[0] > 0.5
    assert abs(kept[1]) < 0.3


def test_feedback_of_another_picture_than_the_last_chosen_is_left_out() -> None:
    blend = Blend(1)
    blend.grow(2)
    blend.chosen(np.array([0]), np.array([1.0]), np.array([[2.0]]))
    before = blend.weights.copy()
    blend.learn(np.array([0, 1]), np.array([0.96, 1.0]), np.zeros(2))
    np.testing.assert_array_equal(blend.weights, before)
    blend.learn(np.array([0]), np.array([1.0]), np.zeros(1))
    assert blend.weights[0] < before[0]
    again = blend.weights.copy()
    blend.learn(np.array([0]), np.array([1.0]), np.zeros(1))  # told twice, learned once
    np.testing.assert_array_equal(blend.weights, again)


def test_weights_stay_bounded_whatever_is_told() -> None:
    blend = Blend(2)
    blend.grow(1)
    for number in range(3000):
        time = np.array([float(number)])
        blend.chosen(np.array([0]), time, np.array([[LARGEST_ODDS, -LARGEST_ODDS]]))
        blend.learn(np.array([0]), time, np.array([float(number % 2)]))
    assert np.isfinite(blend.weights).all()
    assert np.abs(blend.weights).max() <= 3.0


def test_log_odds_are_bounded_and_undone() -> None:
    p = np.array([0.0, 0.01, 0.5, 0.99, 1.0])
    odds = log_odds(p)
    assert odds.min() == pytest.approx(-LARGEST_ODDS)
    assert odds.max() == pytest.approx(LARGEST_ODDS)
    np.testing.assert_allclose(1 / (1 + np.exp(-odds[1:4])), p[1:4])


def test_a_network_that_knows_nothing_does_little_harm_for_it_is_weighed() -> None:
    network = Network("extended", FeatureChoice())
    ignorant = Predictor(network, random_weights(network, rng=np.random.default_rng(5)))
    cameras = Cameras.made(40, 1500, seed=3)
    share = cameras.keyframe_share
    without = run(cameras, Freshness(price=Price()), share).accuracy
    weighed = run(cameras, Freshness(ignorant, price=Price()), share).accuracy
    trusted = run(cameras, Freshness(ignorant, price=Price(), blends=False), share).accuracy
    assert trusted < without - 0.05
    assert weighed > without - 0.02
