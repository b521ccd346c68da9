"""Filter rate, accuracy, what is possible, what is luck, and what is worth having."""

from __future__ import annotations

import numpy as np
import pytest

from triparty.device.filters.cost import cost_of, worth
from triparty.device.filters.scores import (
    best_point,
    best_possible,
    point_at,
    quality,
    random_level,
    random_reuse_level,
)

NEEDED = np.arange(100) >= 80  # a fifth is needed


def test_a_filter_that_knows_reaches_what_is_possible() -> None:
    found = best_point(np.arange(100.0), NEEDED, 0.9)
    assert found.filter_rate == pytest.approx(best_possible(NEEDED, 0.9)) == 0.9
    assert found.accuracy == pytest.approx(0.9)
    assert best_possible(NEEDED, 0.7) == 1.0


def test_a_filter_that_guesses_stays_at_luck() -> None:
    rates = []
    for seed in range(30):
        rng = np.random.default_rng(seed)
        needed = rng.random(4000) < 0.4
        rates.append(best_point(rng.random(4000), needed, 0.9).filter_rate)
        assert random_level(needed, 0.9) == pytest.approx(0.25, abs=0.02)
    assert np.mean(rates) == pytest.approx(0.25, abs=0.02)


def test_a_threshold_skips_what_scores_at_most_as_much() -> None:
    logits = np.arange(100.0)
    assert point_at(logits, NEEDED, 84.0).filter_rate == pytest.approx(0.85)
    assert point_at(logits, NEEDED, 84.0).accuracy == pytest.approx(0.95)
    assert point_at(logits, NEEDED, None).filter_rate == 0.0


def test_luck_in_reuse_is_how_often_two_results_agree() -> None:
    labels = np.array([0] * 50 + [1] * 50)
    assert random_reuse_level(labels, 0.9) == pytest.approx(0.2)
    assert random_reuse_level(np.zeros(9, np.int64), 0.9) == 1.0


def test_quality_is_0_for_luck_and_1_for_what_is_possible() -> None:
    assert quality(0.55, 0.92, 0.55) == 0.0
    assert quality(0.92, 0.92, 0.55) == 1.0
    assert quality(1.0, 0.9, 1.0) is None


def test_a_filter_is_worth_its_cost_above_break_even() -> None:
    assert worth(0.5, 1.0, 10.0, 0.0).break_even == pytest.approx(0.1)
    assert worth(0.11, 1.0, 10.0, 0.0).worth_having
    assert not worth(0.10, 1.0, 10.0, 0.0).worth_having  # it has to be above
    assert not worth(0.11, 1.0, 10.0, 2.0).worth_having  # what is answered instead costs too
    assert worth(1.0, 1.0, 0.5, 0.0) == worth(0.0, 1.0, 0.5, 0.0)  # dearer than the model
    assert worth(1.0, 1.0, None, 0.0).worth_having is None


def test_costs_are_measured_on_every_input_in_turn() -> None:
    seen: list[int] = []
    assert cost_of(seen.append, [1, 2, 3]) > 0
    assert seen[:5] == [1, 1, 2, 3, 1]  # a warm-up first
