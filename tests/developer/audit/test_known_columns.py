"""Known plaintext against a permutation: one row gives nearly all of it, two rows all."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from planted_rows import planted, rotation, rounded, signed_permutation

from triparty.developer.audit import Level
from triparty.developer.audit.attacks import KnownColumns
from triparty.developer.audit.knowledge import Knowledge, KnownRows


def right_columns(width: int, known: int, wire: Any = np.asarray) -> float:
    knowledge, truth = planted(signed_permutation(width), known=known)
    rows = knowledge.known
    assert rows is not None
    found = KnownColumns().mount(
        replace(knowledge, known=KnownRows(wire(rows.keyed), rows.plain))
    )
    return float((found.key == truth.key).all(axis=0).mean())


@pytest.mark.parametrize("width", [64, 768])
def test_two_known_rows_give_the_permutation(width: int) -> None:
    assert right_columns(width, 2) == 1.0


def test_one_known_row_gives_nearly_all_of_it() -> None:
    assert right_columns(768, 1) > 0.98
    assert right_columns(64, 1) > 0.98


def test_rounding_to_bf16_costs_a_second_or_a_third_row() -> None:
    assert 0.5 < right_columns(768, 1, rounded) < 0.9
    assert right_columns(64, 1, rounded) > 0.85
    assert right_columns(768, 2, rounded) > 0.98
    assert right_columns(768, 3, rounded) == 1.0


def test_it_says_how_many_rows_were_enough() -> None:
    knowledge, truth = planted(signed_permutation(48), known=20)
    found = KnownColumns().mount(knowledge)
    assert found.score(truth) == 1.0
    assert found.figures["known_rows"] == 20
    assert found.figures["rows_that_were_enough"] == 1
    assert found.figures["columns_by_one_row"] == 1.0


def test_more_rows_make_up_for_noise() -> None:
    knowledge, truth = planted(signed_permutation(48), known=30, noise=0.3)
    found = KnownColumns().mount(knowledge)
    assert (found.key == truth.key).all()
    assert found.figures["columns_by_one_row"] < 0.5
    assert found.figures["rows_that_were_enough"] > 2


def test_a_rotation_is_not_found() -> None:
    knowledge, truth = planted(rotation(48), known=30)
    found = KnownColumns().mount(knowledge)
    assert found.share == 0.0
    assert found.score(truth) < 0.1


def test_rows_with_keys_of_their_own_say_nothing() -> None:
    knowledge, truth = planted(signed_permutation(48), known=30)
    control = KnownColumns().control(knowledge)
    assert KnownColumns().mount(control).score(truth) < 0.1


def test_what_it_lacks() -> None:
    expanded, _ = planted(rotation(48, 64), known=3)
    assert "expanded" in str(KnownColumns().lacks(expanded))
    assert "no plaintext" in str(KnownColumns().lacks(Knowledge(())))


@pytest.mark.parametrize("name", ["stories_model", "capp_model"])
def test_two_known_rows_open_trained_models(
    name: str, request: pytest.FixtureRequest, scene_of: Any
) -> None:
    scene = scene_of(request.getfixturevalue(name), scheme="permutation")
    knowledge = scene.knowledge.at(Level.K1)
    known = knowledge.known
    two = replace(knowledge, known=KnownRows(known.keyed[:2], known.plain[:2]))
    assert KnownColumns().mount(two).score(scene.truth) == 1.0
