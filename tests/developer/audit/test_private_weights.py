"""Private weights, and what training changed in them, from the public base."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from triparty.developer.audit import Level, audit
from triparty.developer.audit.attacks import PrivateWeights
from triparty.developer.audit.claims import Truth, Weights

ATTACK = PrivateWeights()


@pytest.mark.parametrize("scheme", ["permutation", "orthogonal"])
@pytest.mark.parametrize("model", ["stories_model", "capp_model"])
def test_weights_that_are_the_bases_are_all_found(
    model: str, scheme: str, request: Any, scene_of: Any
) -> None:
    scene = scene_of(request.getfixturevalue(model), scheme=scheme)
    assert ATTACK.mount(scene.knowledge).score(scene.truth) == 1.0
    assert ATTACK.mount(ATTACK.control(scene.knowledge)).score(scene.truth) == 0.0


@pytest.mark.parametrize("model", ["stories_model", "capp_model"])
def test_permuted_weights_give_the_difference_away_as_it_is(
    model: str, request: Any, drifted: Any, scene_of: Any
) -> None:
    base = request.getfixturevalue(model)
    scene = scene_of(drifted(base, 0.3), scheme="permutation", base=base)
    (found,) = audit(scene, attacks=[ATTACK], levels=frozenset([Level.K3])).findings
    assert found.recovered == 1.0
    assert found.control == 0.0
    assert found.figures["cosine of the difference to the base"] > 0.999


def test_rotated_weights_give_most_of_the_difference_away(
    stories_model: Path, drifted: Any, scene_of: Any
) -> None:
    """The rotation is found as well as the base fits, and the difference with it."""
    scene = scene_of(drifted(stories_model, 0.1), scheme="orthogonal", base=stories_model)
    figures = ATTACK.mount(scene.knowledge).figures(scene.truth)
    assert figures["relative error"] < 0.04
    assert figures["cosine of the difference to the base"] > 0.9


def test_figures_of_a_claim() -> None:
    base, plain = np.zeros((2, 2)), np.eye(2)
    truth = Truth((), base, base, np.arange(2), {"a": plain})
    assert Weights({"a": plain}, {"a": base}).figures(truth) == {
        "relative error": 0.0,
        "relative error of the difference to the base": 0.0,
        "cosine of the difference to the base": pytest.approx(1.0),
    }
    assert Weights({"a": base}, {"a": base}).figures(truth) == {}
    assert Weights({}, {"a": base}).figures(truth) == {}
