"""Norm matching: almost all in fp32, little in bf16, under any isometry."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from planted_rows import WIDTH, planted, rotation, rounded, signed_permutation

from triparty.developer.audit import Level
from triparty.developer.audit.attacks import Norms
from triparty.developer.audit.knowledge import Table
from triparty.developer.audit.lengths import Lengths, precision

KEYS = {
    "permutation": signed_permutation(WIDTH),
    "rotation": rotation(WIDTH),
    "expansion": rotation(WIDTH, 64),
}


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("positions", [False, True])
def test_lengths_tell_the_tokens_in_fp32(key: str, positions: bool) -> None:
    knowledge, truth = planted(KEYS[key], positions=positions)
    assert Norms().mount(knowledge).score(truth) > 0.98


def test_rounding_to_bf16_and_noise_hide_them() -> None:
    knowledge, truth = planted(KEYS["rotation"], vocabulary=5000)
    assert Norms().mount(knowledge).score(truth) > 0.95
    coarse = replace(knowledge, traffic=tuple(map(rounded, knowledge.traffic)))
    assert Norms().mount(coarse).score(truth) < 0.7
    noisy, truth = planted(KEYS["rotation"], vocabulary=5000, noise=0.1)
    assert Norms().mount(noisy).score(truth) < 0.1


@pytest.mark.parametrize("positions", [False, True])
def test_other_lengths_say_nothing(positions: bool) -> None:
    knowledge, truth = planted(KEYS["rotation"], positions=positions)
    control = Norms().control(knowledge)
    assert Norms().mount(control).score(truth) < 0.1


@pytest.mark.parametrize("scheme", ["permutation", "orthogonal"])
@pytest.mark.parametrize("name", ["stories_model", "capp_model"])
def test_it_reads_trained_models_in_fp32(
    name: str, scheme: str, request: pytest.FixtureRequest, scene_of: Any
) -> None:
    scene = scene_of(request.getfixturevalue(name), scheme=scheme)
    found = Norms().mount(scene.knowledge.at(Level.K2))
    assert found.score(scene.truth) > 0.98


def test_lengths_of_sums_are_exact() -> None:
    rng = np.random.default_rng(1)
    rows = rng.normal(size=(9000, 8)).astype(np.float32)
    positions = rng.normal(size=(70, 8)).astype(np.float32)
    lengths = Lengths(Table(rows, positions))
    tokens, places = np.array([0, 5000, 8999]), np.array([0, 69, 3])
    sums = (rows[tokens].astype(np.float64) + positions[places]) ** 2
    found, gaps = lengths.nearest(sums.sum(axis=1), places)
    assert found.tolist() == tokens.tolist()
    assert gaps.max() < 1e-12
    assert 5000 in lengths.within(sums[1].sum() - 1e-9, sums[1].sum() + 1e-9, 69)


def test_values_show_how_they_were_rounded() -> None:
    rows = np.random.default_rng(2).normal(size=(4, 16)).astype(np.float32)
    assert precision(rows) == 2.0**-24
    assert precision(rows.astype(np.float16).astype(np.float32)) == 2.0**-12
    assert precision(rounded(rows)) == 2.0**-9
