"""Fitting: what is learned, from which states, and that it repeats."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from synthetic_streams import Cameras, run

from triparty.common.errors import SettingsError
from triparty.device.gate.features import PUBLISHED, FeatureChoice
from triparty.device.gate.policies import make
from triparty.device.gate.predictor import Network
from triparty.device.gate.training import Course, Recording, fit, simulate

EXTENDED = Network("extended", FeatureChoice())
PAPER = Network("published", FeatureChoice(PUBLISHED, 5, "paper"))
SHORT = Course(copies=2, epochs=6, batch=512)


def recordings(seed: int = 0, *, busy: float = 0.5) -> list[Recording]:
    return Cameras.made(12, 500, seed=seed, busy=busy).recordings()


def balanced_loss(share: float) -> float:
    """Binary cross-entropy of always saying the base rate."""
    return float(-share * np.log(share) - (1 - share) * np.log(1 - share))


@pytest.mark.parametrize("network", [EXTENDED, PAPER])
def test_a_fitted_network_knows_more_than_the_base_rate(network: Network) -> None:
    done = fit(recordings(), network, replace(SHORT, epochs=30))
    assert done.loss < 0.9 * balanced_loss(done.base_rate[0])
    new = simulate(recordings(7), network, SHORT, np.random.default_rng(5))
    said = done.predictor.probabilities(new.inputs)[:, 0]
    true = new.necessary[:, 0] > 0
    order = np.argsort(said)
    ranks = np.empty(len(order))
    ranks[order] = np.arange(1, len(order) + 1)
    above = (ranks[true].sum() - true.sum() * (true.sum() + 1) / 2) / (
        true.sum() * (~true).sum()
    )
    assert above > 0.6  # the area under the curve, on cameras never seen


def test_sizes_that_say_nothing_teach_nothing() -> None:
    """Negative control: labels of one camera with the sizes of another."""
    mixed = recordings()
    rng = np.random.default_rng(0)
    shuffled = [replace(one, answer=rng.permutation(one.answer)) for one in mixed]
    views = Network("published", FeatureChoice(PUBLISHED[:2]))
    done = fit(shuffled, views, replace(SHORT, gating="full"))
    assert done.loss > 0.97 * balanced_loss(done.base_rate[0])


def test_the_same_seed_gives_the_same_weights() -> None:
    first, second = (fit(recordings(), PAPER, SHORT).predictor for _ in range(2))
    other = fit(recordings(), PAPER, replace(SHORT, seed=1)).predictor
    for name, weight in first.weights.items():
        np.testing.assert_array_equal(weight, second.weights[name])
    assert any((w != other.weights[name]).any() for name, w in first.weights.items())


def test_full_records_ask_every_picture_after_the_first_about_the_one_before() -> None:
    given = recordings()
    samples = simulate(given, PAPER, replace(SHORT, gating="full"), np.random.default_rng(0))
    assert len(samples.inputs) == sum(len(one) - 1 for one in given)
    changed = sum((np.diff(one.answer[:, 0]) != 0).sum() for one in given)
    assert samples.necessary.sum() == changed


def test_random_gating_sees_answers_of_every_age() -> None:
    choice = FeatureChoice(("age",))
    network = Network("extended", choice)
    rng = np.random.default_rng(0)
    random = simulate(recordings(), network, SHORT, rng).inputs[:, 0]
    full = simulate(recordings(), network, replace(SHORT, gating="full"), rng).inputs[:, 0]
    assert full.max() < np.log1p(0.041)
    assert np.quantile(random, 0.1) < np.log1p(0.5)
    assert np.quantile(random, 0.9) > np.log1p(2.0)


def test_rewards_are_changes_or_what_is_sought() -> None:
    count = 40
    answer = np.zeros((count, 2), np.int64)
    answer[10:20] = 1
    one = replace(
        recordings()[0],
        **{
            name: getattr(recordings()[0], name)[:count]
            for name in ("time", "size", "type", "reference", "entry", "slice_qp")
        },
        answer=answer,
        sought=np.array([False, True]),
    )
    network = Network("extended", FeatureChoice(), 2)
    course = replace(SHORT, gating="full")
    necessary = simulate([one], network, course, np.random.default_rng(0)).necessary
    np.testing.assert_array_equal(np.flatnonzero(necessary[:, 0]), [9, 19])
    np.testing.assert_array_equal(np.flatnonzero(necessary[:, 1]), range(9, 19))


def test_a_model_that_did_not_look_is_taken_at_its_last_word() -> None:
    base = recordings()[0]
    gaps = base.answer.copy()
    gaps[1::3] = -1
    filled = base.answer.copy()
    filled[1::3] = filled[0:-1:3][: len(filled[1::3])]
    course = replace(SHORT, gating="full")
    made = [
        simulate([replace(base, answer=a)], PAPER, course, np.random.default_rng(0)).necessary
        for a in (gaps, filled)
    ]
    np.testing.assert_array_equal(*made)


def test_recordings_of_different_lengths_do_not_touch_each_other() -> None:
    given = recordings()
    short = replace(
        given[0],
        **{
            name: getattr(given[0], name)[:100]
            for name in ("time", "size", "type", "reference", "entry", "slice_qp", "answer")
        },
    )
    course = replace(SHORT, gating="full")
    both = simulate([short, given[1]], PAPER, course, np.random.default_rng(0))
    alone = simulate([given[1]], PAPER, course, np.random.default_rng(0))
    assert (both.recording == 0).sum() == 99
    np.testing.assert_array_equal(both.part(both.recording == 1).inputs, alone.inputs)


@pytest.mark.slow
def test_a_fitted_gate_is_better_than_feedback_alone() -> None:
    done = fit(Cameras.made(24, 1200, seed=10).recordings(), EXTENDED, Course(copies=3))
    cameras = Cameras.made(40, 1500, seed=11)
    share = 1.5 * cameras.keyframe_share
    learned = run(cameras, make("ours", predictor=done.predictor), share)
    alone = run(cameras, make("feedback_only"), share)
    assert learned.accuracy > alone.accuracy


def test_what_cannot_be_trained_is_refused() -> None:
    with pytest.raises(SettingsError, match="two packets"):
        fit([], EXTENDED, SHORT)
    with pytest.raises(SettingsError, match="answers of shape"):
        fit(recordings(), Network("extended", FeatureChoice(), 2), SHORT)
    for wrong in ({"gating": "none"}, {"copies": 0}, {"held_out": 1.0}, {"rate": 0.0}):
        with pytest.raises(SettingsError):
            Course(**wrong)
