"""Linking: the key from one instance to another, from their weights alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from triparty.developer.audit import Level, set_scene
from triparty.developer.audit.attacks import Linking
from triparty.developer.audit.knowledge import Knowledge, Table
from triparty.developer.audit.matching import as_is, match
from triparty.developer.protect import Choices, protect

SCHEMES = pytest.mark.parametrize("scheme", ["permutation", "orthogonal"])


@SCHEMES
@pytest.mark.parametrize("model", ["stories_model", "capp_model"])
def test_two_cohorts_of_a_trained_model_are_linked(
    model: str, scheme: str, request: Any, scene_of: Any
) -> None:
    scene = scene_of(request.getfixturevalue(model), scheme=scheme, instances=2)
    knowledge, truth = scene.knowledge.at(Level.K0), scene.truth
    claim = Linking().mount(knowledge)
    assert claim.score(truth) == 1.0
    assert np.abs(truth.key @ claim.relation - truth.other_key).max() <= 1e-5
    assert Linking().mount(Linking().control(knowledge)).score(truth) <= 0.1


@SCHEMES
def test_two_epochs_are_linked_and_the_old_bundle_reads_the_new_traffic(
    scheme: str, stories_model: Path, tmp_path: Path
) -> None:
    outs = [tmp_path / str(epoch) for epoch in (1, 2)]
    for epoch, out in enumerate(outs, start=1):
        protect(str(stories_model), out, choices=Choices.of(scheme=scheme, epoch=epoch))
    old = set_scene(str(stories_model), outs[0], other=outs[1])
    new = set_scene(str(stories_model), outs[1])
    relation = Linking().mount(old.knowledge.at(Level.K0)).relation
    bundle = old.knowledge.bundle
    held = bundle.rows(np.arange(bundle.info.vocabulary), start=0).as_float32()
    moved = Table((held @ relation).astype(np.float32), None)
    assert match(new.knowledge.traffic, moved, as_is).score(new.truth) == 1.0
    unmoved = Table(held, None)
    assert match(new.knowledge.traffic, unmoved, as_is).score(new.truth) <= 0.1


@SCHEMES
@pytest.mark.parametrize("noise", [0.1, 0.3])
def test_noise_of_its_own_does_not_hide_an_instance(
    noise: float, scheme: str, capp_model: Path, drifted: Any, tmp_path: Path
) -> None:
    """Noise that spoils the answers of a model leaves its instances linked."""
    views, keys = [], []
    for seed in (1, 2):
        out, source = tmp_path / str(seed), drifted(capp_model, noise, seed=seed)
        protect(str(source), out, choices=Choices.of(scheme=scheme))
        scene = set_scene(str(source), out)
        views.append(scene.knowledge.hosted)
        keys.append(scene.truth.key)
    claim = Linking().mount(Knowledge((), hosted=views[0], other=views[1]))
    assert claim.score(replace(scene.truth, key=keys[0], other_key=keys[1])) == 1.0


@pytest.mark.slow
@SCHEMES
def test_two_cohorts_of_an_encoder_are_linked(
    scheme: str, minilm_model: Path, scene_of: Any
) -> None:
    scene = scene_of(minilm_model, scheme=scheme, instances=2)
    claim = Linking().mount(scene.knowledge.at(Level.K0))
    assert np.abs(scene.truth.key @ claim.relation - scene.truth.other_key).max() <= 1e-5


def test_one_instance_alone_is_linked_to_nothing(stories_model: Path, scene_of: Any) -> None:
    scene = scene_of(stories_model, scheme="permutation")
    assert "second instance" in str(Linking().lacks(scene.knowledge))
