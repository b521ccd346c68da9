"""Metrics of links, against values worked out by hand and against scikit-free definitions."""

from __future__ import annotations

import numpy as np
import pytest
from linked_outputs import SPECS, linked

from triparty.common.errors import DatasetError
from triparty.common.links.features import constant
from triparty.common.links.metrics import (
    agreement,
    average_precision,
    box_overlap,
    edits,
    score,
)
from triparty.common.links.specs import PAD, Seq, Vec


@pytest.mark.parametrize("name", SPECS)
def test_a_model_agrees_with_itself(name: str) -> None:
    said = linked(40).outputs[name]
    found = score(SPECS[name], said, said)
    assert found.share == 1.0
    assert found.value == (0.0 if found.metric in ("MAE", "WER") else 1.0)
    assert (agreement(SPECS[name], said, said) == 1.0).all()


@pytest.mark.parametrize("name", SPECS)
def test_other_rows_do_not_agree(name: str) -> None:
    said = linked(40).outputs[name]
    assert score(SPECS[name], said[::-1].copy(), said).share < 0.8


def test_words_are_counted_by_edits() -> None:
    assert edits([1, 2, 3], [1, 2, 3]) == 0
    assert edits([], [1, 2]) == 2
    assert edits([1, 2, 3], [2, 3]) == 1
    assert edits([5, 1, 6], [1, 7, 6]) == 2
    spec = Seq(9, 3)
    said = np.array([[1, 2, 3], [4, PAD, PAD]])
    told = np.array([[1, 2, PAD], [5, 6, PAD]])
    assert score(spec, told, said).value == pytest.approx(3 / 4)
    assert agreement(spec, told, said) == pytest.approx([2 / 3, 0.0])


def test_boxes_overlap_by_area() -> None:
    box = np.array([[1, 0, 0, 2, 2], [1, 0, 0, 1, 1], [0, 0, 0, 0, 0], [1, 0, 0, 1, 1]], float)
    other = np.array(
        [[1, 1, 0, 3, 2], [1, 2, 2, 3, 3], [0, 9, 9, 9, 9], [0, 0, 0, 1, 1]], float
    )
    assert box_overlap(box, other) == pytest.approx([1 / 3, 0.0, 1.0, 0.0])


def test_precision_of_a_ranking() -> None:
    scores = np.array([0.9, 0.8, 0.7, 0.6])
    there = np.array([True, False, True, False])
    assert average_precision(scores, there) == pytest.approx((1 + 2 / 3) / 2)
    assert average_precision(np.full(4, 0.5), there) == pytest.approx(0.5)
    assert average_precision(-scores, there) == pytest.approx((1 / 2 + 2 / 4) / 2)


def test_an_error_is_measured_by_that_of_the_constant() -> None:
    spec = Vec("regression", 1)
    said = np.array([[0.0], [2.0], [4.0], [6.0]], np.float32)
    still = np.broadcast_to(constant(spec, said), said.shape)
    assert score(spec, still, said).share == 0.0
    half = said + 1.0
    assert score(spec, half, said).value == 1.0
    assert score(spec, half, said).share == pytest.approx(0.5)
    assert score(spec, said + 100, said).share == 0.0


def test_a_count_is_right_within_its_tolerance() -> None:
    said = np.array([[1.0], [2.0], [3.0]], np.float32)
    told = np.array([[1.4], [2.5], [3.0]], np.float32)
    found = score(SPECS["count"], told, said)
    assert (found.metric, found.value) == ("accuracy", pytest.approx(2 / 3))


@pytest.mark.parametrize("name", SPECS)
def test_no_other_row_does_better_than_the_constant(name: str) -> None:
    """The constant is the mode, the median or the mean: no recorded row beats it by much."""
    spec, said = SPECS[name], linked(60, seed=3).outputs[name]
    still = score(spec, np.broadcast_to(constant(spec, said), said.shape), said).share
    others = [score(spec, np.broadcast_to(one, said.shape), said).share for one in said]
    slack = {"tags": 1.0, "box": 0.25, "count": 0.35, "words": 0.3}
    assert still >= max(others) - slack.get(name, 1e-6)


def test_as_many_predictions_as_outputs() -> None:
    said = linked(4).outputs["size"]
    with pytest.raises(DatasetError, match="3 predictions of 4 outputs"):
        score(SPECS["size"], said[:3], said)
    with pytest.raises(DatasetError, match="at least 1"):
        score(SPECS["size"], said[:0], said[:0])
