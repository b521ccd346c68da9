"""Known plaintext against a rotation, alone and with the table."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from planted_rows import planted, rotation, signed_permutation

from triparty.developer.audit import Level
from triparty.developer.audit.attacks import Procrustes, ProcrustesTable
from triparty.developer.audit.knowledge import Knowledge

WIDTH = 96


def opened(known: int, *, noise: float = 0.0, expanded: int | None = None) -> float:
    knowledge, truth = planted(rotation(WIDTH, expanded), known=known, noise=noise, texts=30)
    assert knowledge.known is not None
    assert len(knowledge.known.plain) == known
    return Procrustes().mount(knowledge).score(truth)


def test_without_noise_any_subspace_tells_tokens_apart() -> None:
    assert opened(WIDTH // 2) == opened(WIDTH // 2, expanded=128) == 1.0
    assert opened(2) > 0.99


def test_noise_costs_more_known_rows() -> None:
    shares = [opened(known, noise=1.0) for known in (4, 16, WIDTH // 2, 150)]
    assert shares == sorted(shares)
    assert shares[0] < 0.1
    assert shares[-2] > 0.5
    assert shares[-1] > 0.99


def test_known_rows_span_the_subspace_that_they_give() -> None:
    knowledge, truth = planted(rotation(WIDTH), known=30, texts=30)
    found = Procrustes().mount(knowledge)
    assert found.figures["dimensions"] == 30
    assert np.linalg.norm(found.key) ** 2 == pytest.approx(30)
    assert np.abs(found.key - truth.key).max() > 0.01


def test_as_many_rows_as_the_width_give_the_key_itself() -> None:
    knowledge, truth = planted(rotation(WIDTH), known=150, texts=30)
    found = Procrustes().mount(knowledge)
    assert np.abs(found.key - truth.key).max() < 1e-5
    assert found.figures == {"known_rows": 150, "dimensions": WIDTH}


@pytest.mark.parametrize("positions", [False, True])
@pytest.mark.parametrize("key", [rotation(WIDTH), signed_permutation(WIDTH)])
def test_with_the_table_few_known_rows_are_enough(key: Any, positions: bool) -> None:
    knowledge, truth = planted(key, known=8, texts=30, positions=positions)
    found = ProcrustesTable().mount(knowledge)
    assert found.score(truth) > 0.99
    assert found.figures["known_rows"] <= 3


def test_with_the_table_noise_is_tolerated() -> None:
    knowledge, truth = planted(rotation(WIDTH), known=24, texts=30, noise=0.3)
    found = ProcrustesTable().mount(knowledge)
    assert found.score(truth) > 0.95
    assert found.figures["known_rows"] <= 24


@pytest.mark.parametrize("attack", [Procrustes(), ProcrustesTable()])
def test_rows_with_rotations_of_their_own_say_nothing(attack: Any) -> None:
    knowledge, truth = planted(rotation(WIDTH), known=48, texts=30)
    assert attack.mount(attack.control(knowledge)).score(truth) < 0.1


@pytest.mark.parametrize("attack", [Procrustes(), ProcrustesTable()])
def test_what_it_lacks(attack: Any) -> None:
    assert attack.lacks(Knowledge(()))


@pytest.mark.parametrize("attack", [Procrustes(), ProcrustesTable()])
@pytest.mark.parametrize("name", ["stories_model", "capp_model"])
def test_it_opens_trained_models(
    name: str, attack: Any, request: pytest.FixtureRequest, scene_of: Any
) -> None:
    scene = scene_of(request.getfixturevalue(name), scheme="orthogonal")
    assert attack.mount(scene.knowledge.at(Level.K2)).score(scene.truth) > 0.99
