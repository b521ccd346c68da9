"""Matching rows by what a key does not change, and keeping track of places meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from planted_rows import WIDTH, planted, rotation, rounded, signed_permutation

from triparty.developer.audit.claims import UNKNOWN, Rows
from triparty.developer.audit.knowledge import Table, given
from triparty.developer.audit.matching import as_is, match, sorted_values
from triparty.developer.audit.traffic import MAX_TEXT_ROWS


def halves(rows: Rows) -> Rows:
    """Rows as a wire of fp16 rounds them."""
    return rows.astype(np.float16).astype(np.float32)


@pytest.mark.parametrize("positions", [False, True])
@pytest.mark.parametrize("wire", [np.asarray, halves, rounded])
def test_every_row_is_matched_through_the_rounding_of_any_wire(
    wire: Callable[[Rows], Rows], positions: bool
) -> None:
    knowledge, truth = planted(signed_permutation(WIDTH), positions=positions)
    sent = tuple(wire(rows) for rows in knowledge.traffic)
    assert match(sent, given(knowledge.table), sorted_values).score(truth) == 1.0
    assert match(sent, given(knowledge.table), as_is).score(truth) <= 0.05


@pytest.mark.parametrize("positions", [False, True])
def test_nothing_of_rotated_rows_is_matched(positions: bool) -> None:
    knowledge, _ = planted(rotation(WIDTH), positions=positions)
    assert match(knowledge.traffic, given(knowledge.table), sorted_values).share == 0.0


def test_a_token_that_two_rows_fit_is_open_and_its_session_goes_on() -> None:
    rng = np.random.default_rng(0)
    rows, placed = (rng.normal(size=(n, 16)).astype(np.float32) for n in (20, 12))
    rows[7] = rows[3]
    ids = np.array([1, 2, 4, 3, 5, 7, 6])
    sent = rows[ids] + placed[: len(ids)]
    requests = [sent[:3], *sent[3:, None]]
    found = np.concatenate(match(requests, Table(rows, placed), as_is).token_ids)
    np.testing.assert_array_equal(found, [1, 2, 4, UNKNOWN, 5, UNKNOWN, 6])


def test_a_row_of_zeros_is_a_row() -> None:
    rows = np.vstack([np.zeros((1, 16)), np.eye(16)]).astype(np.float32)
    found = match([rows[[0, 3, 0]]], Table(rows, None), sorted_values).token_ids[0]
    np.testing.assert_array_equal(found, [0, UNKNOWN, 0])


def test_sample_texts_are_not_padded(minilm_model: Path, scene_of: Any) -> None:
    scene = scene_of(minilm_model)
    padding = given(scene.knowledge.bundle).info.pad_id
    assert padding is not None
    texts = [*scene.truth.token_ids, *scene.knowledge.language]
    assert not any((ids == padding).any() for ids in texts)
    assert max(map(len, texts)) <= MAX_TEXT_ROWS
