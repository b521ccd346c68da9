"""Thresholds that keep an accuracy: the bound, its edge, and that it holds."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import beta

from triparty.common.errors import DatasetError, SettingsError
from triparty.common.nets.calibration import (
    accuracy_bound,
    accuracy_ceiling,
    calibrate_skip,
    most_wrong,
    skip_curve,
)


@given(st.integers(1, 400), st.data())
def test_the_bound_is_clopper_and_pearsons(samples: int, data: st.DataObject) -> None:
    wrong = data.draw(st.integers(0, samples))
    expected = 0.0 if wrong == samples else beta.ppf(0.05, samples - wrong, wrong + 1)
    assert accuracy_bound(wrong, samples, 0.95) == pytest.approx(expected, abs=1e-9)
    top = 1.0 if wrong == 0 else beta.ppf(0.95, samples - wrong + 1, wrong)
    assert accuracy_ceiling(wrong, samples, 0.95) == pytest.approx(top, abs=1e-9)


def test_29_right_answers_show_90_percent_and_28_do_not() -> None:
    assert most_wrong(28, 0.9, 0.95) == -1
    assert most_wrong(29, 0.9, 0.95) == 0
    assert accuracy_bound(most_wrong(800, 0.9, 0.95), 800, 0.95) >= 0.9
    assert accuracy_bound(most_wrong(800, 0.9, 0.95) + 1, 800, 0.95) < 0.9


def test_equal_scores_are_skipped_together_and_no_other_is_lost() -> None:
    logits = np.array([3.0, 1.0, 1.0, 2.0])
    skipped, wrong, thresholds = skip_curve(logits, np.array([True, False, True, False]))
    assert skipped.tolist() == [2, 3, 4]
    assert wrong.tolist() == [1, 1, 2]
    assert thresholds.tolist() == [1.0, 2.0, 3.0]


def test_a_saturated_filter_still_gets_all_that_is_possible() -> None:
    """Differences far below what a grid on the sigmoid would see."""
    needed = np.arange(1000) >= 800
    logits = 40.0 + np.arange(1000) * 1e-6
    found = calibrate_skip(logits, needed)
    most = most_wrong(1000, 0.9, 0.95)
    assert found.filter_rate == (800 + most) / 1000
    assert found.accuracy == 1 - most / 1000
    assert ((logits <= found.threshold) & needed).sum() == most


def test_too_few_samples_or_a_useless_filter_filter_nothing() -> None:
    few = calibrate_skip(np.arange(20.0), np.zeros(20, bool))
    assert few.threshold is None
    assert few.filter_rate == 0.0
    backwards = calibrate_skip(np.arange(200.0), np.arange(200) < 100)
    assert backwards.filter_rate < 0.1


def test_the_promise_is_kept_as_often_as_it_says() -> None:
    """Of many filters calibrated with 90 % confidence, about a tenth or fewer break it."""
    rng = np.random.default_rng(0)
    broken = naive = 0
    for _ in range(400):
        needed = rng.random(300) < 0.5
        logits = needed + rng.normal(size=300)
        threshold = calibrate_skip(logits, needed, confidence=0.9).threshold
        best = calibrate_skip(logits, needed, confidence=0.5).threshold
        true_loss = [
            0.5 * float(normal_below(one - 1.0)) if one is not None else 0.0
            for one in (threshold, best)
        ]
        broken += true_loss[0] > 0.1
        naive += true_loss[1] > 0.1
    assert 0.01 < broken / 400 < 0.135
    assert naive / 400 > 0.35  # the negative control: no margin, no promise


def normal_below(value: float) -> float:
    """The normal distribution function."""
    from math import erf, sqrt

    return 0.5 * (1.0 + erf(value / sqrt(2.0)))


def test_what_cannot_be_calibrated_is_refused() -> None:
    logits, needed = np.arange(3.0), np.ones(3, bool)
    with pytest.raises(DatasetError, match="expected as many"):
        calibrate_skip(logits, needed[:2])
    with pytest.raises(DatasetError, match="row 1"):
        calibrate_skip(np.array([0.0, np.nan, 1.0]), needed)
    for target, confidence in ((1.0, 0.9), (0.9, 0.0)):
        with pytest.raises(SettingsError):
            calibrate_skip(logits, needed, target_accuracy=target, confidence=confidence)
