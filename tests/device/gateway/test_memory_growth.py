"""The judgement of memory in long runs: a leak fails it, a plateau does not."""

from __future__ import annotations

import numpy as np
import pytest
from memory_growth import THIRDS_MIB, growth

MARKS = 600
PART = np.linspace(0.0, 1.0, MARKS)  # of the run


def wobble(seed: int) -> np.ndarray:
    """A process at work: marks off by 1 MiB, a slow tide of 4, now and then a peak of 60."""
    rng = np.random.default_rng(seed)
    peaks = 60.0 * (rng.random(MARKS) < 0.03)
    return rng.normal(0.0, 1.0, MARKS) + 2.0 * np.sin(40.0 * PART + seed) + peaks


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("leak_mib", [30.0, 45.0, 55.0])
def test_what_grows_for_the_whole_run_fails_though_its_thirds_pass(
    leak_mib: float, seed: int
) -> None:
    found = growth((377.0 + leak_mib * PART + wobble(seed)).tolist())
    assert found.thirds_mib < THIRDS_MIB
    assert found.second_half_mib == pytest.approx(leak_mib / 2, abs=3.0)
    assert not found.has_ended


@pytest.mark.parametrize("seed", range(5))
def test_a_plateau_passes(seed: int) -> None:
    warmed_up = 377.0 + 45.0 * (1.0 - np.exp(-8.0 * PART)) + wobble(seed)
    assert growth(warmed_up.tolist()).has_ended
    assert growth((400.0 + wobble(seed)).tolist()).has_ended
    assert growth((400.0 - 30.0 * PART + wobble(seed)).tolist()).has_ended
    busy_at_last = 400.0 + 40.0 * (PART > 0.95) + wobble(seed)
    assert growth(busy_at_last.tolist()).has_ended


@pytest.mark.parametrize("seed", range(5))
def test_a_leak_that_begins_late_fails(seed: int) -> None:
    late = 400.0 + 60.0 * np.maximum(PART - 0.6, 0.0) + wobble(seed)
    found = growth(late.tolist())
    assert found.thirds_mib < THIRDS_MIB
    assert not found.has_ended


def test_what_is_learnt_at_once_and_is_too_much_fails() -> None:
    found = growth((400.0 + 60.0 * (PART > 0.4)).tolist())
    assert found.second_half_mib == pytest.approx(0.0)
    assert not found.has_ended


def test_a_few_marks_are_not_judged() -> None:
    with pytest.raises(ValueError, match="11 marks of memory"):
        growth([400.0] * 11)
