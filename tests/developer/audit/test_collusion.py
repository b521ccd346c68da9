"""A user of the cohort opens everything, a user of another one nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from triparty.common.keying import Bundle
from triparty.developer.audit import Level, set_scene
from triparty.developer.audit.attacks import Collusion, CollusionFunction
from triparty.developer.audit.knowledge import Knowledge
from triparty.developer.protect import Choices, protect

ways = pytest.mark.parametrize("scheme", ["permutation", "orthogonal"])


@ways
@pytest.mark.parametrize("name", ["stories_model", "capp_model"])
def test_a_bundle_opens_tokens_and_function_of_its_cohort(
    name: str, scheme: str, request: pytest.FixtureRequest, scene_of: Any
) -> None:
    scene = scene_of(request.getfixturevalue(name), scheme=scheme)
    knowledge = scene.knowledge.at(Level.K4)
    assert Collusion().mount(knowledge).score(scene.truth) == 1.0
    found = CollusionFunction().mount(knowledge)
    assert found.score(scene.truth) == 1.0
    plain = scene.truth.answers(found.sample)
    assert np.linalg.norm(found.found - plain) <= 1e-5 * np.linalg.norm(plain)


@ways
@pytest.mark.parametrize("interface", ["embeddings", "tokens"])
def test_the_bundle_of_another_cohort_opens_nothing(
    scheme: str, interface: str, stories_model: Path, tmp_path: Path
) -> None:
    for name in ("mine", "theirs"):
        choices = Choices.of(scheme=scheme, interface=interface)
        protect(str(stories_model), tmp_path / name, choices=choices)
    scene = set_scene(str(stories_model), tmp_path / "mine")
    assert Collusion().mount(scene.knowledge).score(scene.truth) == 1.0
    theirs = replace(scene.knowledge, bundle=Bundle.open(tmp_path / "theirs" / "device"))
    assert CollusionFunction().mount(theirs).score(scene.truth) == 0.0
    if interface == "embeddings":
        assert Collusion().mount(theirs).score(scene.truth) < 0.1
    for attack in (Collusion(), CollusionFunction()):
        control = attack.control(scene.knowledge)
        assert attack.mount(control).score(scene.truth) < 0.1


def test_what_it_lacks() -> None:
    assert Collusion().lacks(Knowledge(()))
    assert CollusionFunction().lacks(Knowledge(()))
