"""What a report says of a stream is what its packets are."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_traces import FREE_B, INTRA, ONLY_P, Group, made_trace

from triparty.device.gate.report import Signal, advice, auc, gateability
from triparty.device.gate.report_saving import needed


@pytest.mark.parametrize(
    ("group", "frames", "free"), [(ONLY_P, 6, 0.0), (FREE_B, 5, 0.4), (INTRA, 1, 0.0)]
)
def test_groups_and_free_pictures_are_counted(group: Group, frames: int, free: float) -> None:
    found = gateability(made_trace(group, groups=4))
    assert found.group_frames == (frames, frames)
    assert found.free_share == pytest.approx(free)
    assert sum(found.types.values()) == pytest.approx(1)


def test_costs_are_sums_over_closures() -> None:
    trace = made_trace(ONLY_P, groups=3)
    cost = trace.packets.cost_ms.astype(np.float64)
    closures = np.concatenate([np.cumsum(cost[start : start + 6]) for start in (0, 6, 12)])
    found = gateability(trace)
    assert found.keyframe_cost == pytest.approx(cost[::6].sum() / cost.sum())
    assert found.closure_tax == pytest.approx(closures.mean() / cost.mean())
    assert found.largest_closure_ms == pytest.approx(closures.max())
    assert found.reference_cost == pytest.approx(1.0)
    assert found.measured
    assert found.inference_fps_needed(0.9) == pytest.approx(0.1 * 1000 / cost.mean())


def test_an_open_group_is_not_cut_twice() -> None:
    free = gateability(made_trace(FREE_B, groups=3))
    assert free.reference_cost < 1.0


@given(
    score=st.lists(st.integers(0, 5), min_size=1, max_size=30),
    data=st.data(),
)
def test_auc_is_the_chance_that_a_positive_scores_higher(
    score: list[int], data: st.DataObject
) -> None:
    count = len(score)
    positive = data.draw(st.lists(st.booleans(), min_size=count, max_size=count))
    pairs = [
        (high > low) + 0.5 * (high == low)
        for high, yes in zip(score, positive, strict=True)
        for low, no in zip(score, positive, strict=True)
        if yes and not no
    ]
    found = auc(np.array(score, float), np.array(positive))
    if pairs:
        assert found == pytest.approx(np.mean(pairs))
    else:
        assert np.isnan(found)


def test_advice_names_what_is_wrong_and_nothing_else() -> None:
    good = gateability(made_trace(FREE_B, groups=10, fps=5.0))
    good = replace(good, signals=(Signal("motion", 0.9),))
    assert advice(good) == ("nothing to change: this stream gates well as it is",)
    long = replace(good, group_frames=(250.0, 250), group_seconds=(10.0, 10.0))
    assert "GOP" in advice(long)[0]
    no_free = replace(good, free_share=0.0)
    assert "B-frames" in advice(no_free)[0]
    open_groups = replace(good, open_groups=0.5)
    assert "closed GOPs" in advice(open_groups)[0]
    steady = replace(good, signals=(Signal("motion", 0.5),))
    assert "variable bit rate" in advice(steady)[0]
    whole = replace(good, ungateable="intra refresh")
    assert "decoded whole: intra refresh" in advice(whole)[0]


def test_the_cost_of_an_accuracy_lies_on_the_line_between_points() -> None:
    cost, right = np.array([0.1, 0.2, 0.4]), np.array([0.5, 0.8, 1.0])
    assert needed(cost, right, 0.65) == pytest.approx(0.15)
    assert needed(cost, right, 0.4) == pytest.approx(0.1)
    assert needed(cost[:2], right[:2], 0.9) == float("inf")
