"""Alignment and rotation: the key of the residual, from the public base."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from triparty.developer.audit import set_scene
from triparty.developer.audit.attacks import Alignment, Rotation
from triparty.developer.audit.keyfinding import places_key
from triparty.developer.audit.reading import Reading
from triparty.developer.protect import Choices, protect

DRIFTS = pytest.mark.parametrize("drift", [0.0, 0.1, 0.3])
SMALL = pytest.mark.parametrize("model", ["stories_model", "capp_model"])


def found(
    attack: Any, model: Path, drift: float, scheme: str, drifted: Any, scene_of: Any
) -> tuple[float, float]:
    """The shares of the vocabulary that the attack and its control open."""
    scene = scene_of(drifted(model, drift), scheme=scheme, base=model)
    knowledge = scene.knowledge.at(attack.level)
    assert attack.lacks(knowledge) is None
    control = attack.mount(attack.control(knowledge))
    return attack.mount(knowledge).score(scene.truth), control.score(scene.truth)


@DRIFTS
@SMALL
def test_alignment_finds_the_permutation_of_a_trained_model(
    model: str, drift: float, request: Any, drifted: Any, scene_of: Any
) -> None:
    source = request.getfixturevalue(model)
    shares = found(Alignment(), source, drift, "permutation", drifted, scene_of)
    assert shares[0] == 1.0
    assert shares[1] <= 0.1


@DRIFTS
@SMALL
def test_rotation_finds_the_rotation_of_a_trained_model(
    model: str, drift: float, request: Any, drifted: Any, scene_of: Any
) -> None:
    source = request.getfixturevalue(model)
    shares = found(Rotation(), source, drift, "orthogonal", drifted, scene_of)
    assert shares[0] == 1.0
    assert shares[1] <= 0.1


def test_alignment_finds_no_rotation(stories_model: Path, scene_of: Any) -> None:
    scene = scene_of(stories_model, scheme="orthogonal")
    assert Alignment().mount(scene.knowledge).score(scene.truth) <= 0.1


@pytest.mark.slow
@DRIFTS
@pytest.mark.parametrize("scheme", ["permutation", "orthogonal"])
def test_alignment_of_an_encoder(
    scheme: str, drift: float, minilm_model: Path, drifted: Any, scene_of: Any
) -> None:
    """The residual of BERT trades places under both schemes; its heads are mixed in one."""
    scene = scene_of(drifted(minilm_model, drift), scheme=scheme, base=minilm_model)
    knowledge = scene.knowledge
    claim = Alignment().mount(knowledge)
    assert np.array_equal(claim.key, scene.truth.key)
    assert Alignment().mount(Alignment().control(knowledge)).score(scene.truth) <= 0.1


@SMALL
def test_the_neurons_are_told_apart(
    model: str, request: Any, drifted: Any, scene_of: Any
) -> None:
    """Under the right neurons all columns agree as far as the drift lets them."""
    source = request.getfixturevalue(model)
    scene = scene_of(drifted(source, 0.3), scheme="permutation", base=source)
    base, hosted = Reading.of(scene.knowledge.base), Reading.of(scene.knowledge.hosted)
    result = places_key(base, hosted)
    assert set(result.pairs) == set(base.neurons)
    assert all(
        len(pairs.first) == base.neurons[name].count for name, pairs in result.pairs.items()
    )
    assert result.likeness > 0.9


@pytest.mark.parametrize("scheme", ["permutation", "orthogonal"])
def test_keys_of_random_weights_are_found_as_well(
    scheme: str, make_model: Any, scene_of: Any
) -> None:
    """It needs no structure that training leaves: any weights tell."""
    model = make_model("llama", hidden_size=48, intermediate_size=160, vocab_size=300)
    scene = scene_of(model, scheme=scheme)
    attack = Alignment() if scheme == "permutation" else Rotation()
    assert attack.mount(scene.knowledge).score(scene.truth) == 1.0


def test_a_rotation_is_found_in_an_expanded_residual(
    stories_model: Path, tmp_path: Path
) -> None:
    choices = Choices.of(scheme="orthogonal", expand=96)
    protect(str(stories_model), tmp_path / "out", choices=choices)
    scene = set_scene(str(stories_model), tmp_path / "out")
    assert "expanded" in str(Alignment().lacks(scene.knowledge))
    claim = Rotation().mount(scene.knowledge)
    assert claim.key.shape == (64, 96)
    assert claim.score(scene.truth) == 1.0


def test_what_is_lacking_is_said(
    stories_model: Path, capp_model: Path, make_model: Any, scene_of: Any
) -> None:
    knowledge = scene_of(stories_model, scheme="permutation").knowledge
    of_another = scene_of(capp_model, scheme="permutation").knowledge.base
    for attack in (Alignment(), Rotation()):
        assert "no public base" in str(attack.lacks(replace(knowledge, base=None)))
        assert "not compared" in str(attack.lacks(replace(knowledge, base=of_another)))
    small = scene_of(make_model("llama", hidden_size=64), scheme="permutation").knowledge.base
    assert "different layers" in str(Rotation().lacks(replace(knowledge, base=small)))
