"""Vocabulary matching on hidden states reads everything, with the base or something near it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from triparty.developer.audit import Scene
from triparty.developer.audit.attacks import HiddenVocabulary
from triparty.developer.audit.decoding import sessions
from triparty.developer.audit.distances import Fit, least_distances
from triparty.developer.audit.knowledge import Knowledge

SCHEMES = ("permutation", "orthogonal")


def few(scene: Scene, requests: int = 12) -> Scene:
    """The scene with its first requests alone."""
    knowledge, truth = scene.knowledge, scene.truth
    return replace(
        scene,
        knowledge=replace(
            knowledge,
            traffic=knowledge.traffic[:requests],
            starts=knowledge.starts[:requests],
        ),
        truth=replace(truth, token_ids=truth.token_ids[:requests]),
    )


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("blocks", [(1,), (3,)])
@pytest.mark.parametrize("model", ["stories_model", "capp_model"])
def test_every_token_of_a_trained_model_is_read_at_any_layer(
    model: str, blocks: tuple[int, ...], scheme: str, request: Any, scene_of: Any
) -> None:
    scene = few(scene_of(request.getfixturevalue(model), scheme=scheme))
    attack = HiddenVocabulary(blocks)
    assert attack.lacks(scene.knowledge) is None
    assert attack.mount(scene.knowledge).score(scene.truth) == 1.0
    control = attack.mount(attack.control(scene.knowledge))
    assert control.score(scene.truth) <= 0.25, "a guess may hit a few of so few rows"


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.01, 0.05, 0.1])
@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("model", ["stories_model", "capp_model"])
def test_a_base_that_has_drifted_is_enough(
    model: str, scheme: str, share: float, request: Any, scene_of: Any, drifted: Any
) -> None:
    source: Path = request.getfixturevalue(model)
    scene = scene_of(source, scheme=scheme, base=drifted(source, share))
    assert HiddenVocabulary().mount(scene.knowledge).score(scene.truth) >= 0.95


def test_an_expanded_residual_is_read_as_well(make_model: Any, scene_of: Any) -> None:
    scene = scene_of(make_model("llama"), scheme="orthogonal", expand=40)
    assert scene.knowledge.traffic[0].shape[1] == 40
    assert HiddenVocabulary().mount(scene.knowledge).score(scene.truth) == 1.0


def test_a_base_of_another_model_reads_nothing(make_model: Any, scene_of: Any) -> None:
    source = make_model("llama")
    other = make_model("llama", dtype="float32", rms_norm_eps=0.5)
    scene = scene_of(source, scheme="orthogonal", base=noise_in_place(other))
    assert HiddenVocabulary().mount(scene.knowledge).score(scene.truth) <= 0.1


def noise_in_place(folder: Path) -> Path:
    from safetensors.numpy import load_file, save_file

    rng = np.random.default_rng(5)
    for path in folder.glob("*.safetensors"):
        tensors = load_file(path)
        drawn = {name: rng.normal(size=v.shape).astype(v.dtype) for name, v in tensors.items()}
        save_file(drawn, path, {"format": "pt"})
    return folder


def test_without_a_base_it_is_not_mounted(make_model: Any, scene_of: Any) -> None:
    knowledge = scene_of(make_model("llama"), scheme="permutation").knowledge
    attack = HiddenVocabulary()
    assert "base" in str(attack.lacks(replace(knowledge, base=None)))
    assert "traffic" in str(attack.lacks(replace(knowledge, traffic=())))
    assert attack.lacks(Knowledge(())) is not None


def test_sessions_go_on_where_one_ended() -> None:
    lengths, starts = (3, 2, 1, 1, 4), (0, 0, 3, 2, 0)
    traffic = [np.zeros((length, 2), np.float32) for length in lengths]
    assert sorted(sessions(traffic, starts)) == [[0, 2], [1, 3], [4]]
    assert list(sessions(traffic, ())) == [[0], [1], [2], [3], [4]]


def test_least_distance_is_that_of_the_best_rotation() -> None:
    rng = np.random.default_rng(0)
    stacks, rows = rng.normal(size=(5, 3, 8)), rng.normal(size=(3, 8))
    for stack, found in zip(stacks, least_distances(stacks, rows), strict=True):
        left, _, right = np.linalg.svd(stack.T @ rows)
        assert found == pytest.approx(np.linalg.norm(stack @ left @ right - rows))
    turn = np.linalg.qr(rng.normal(size=(8, 8)))[0]
    assert least_distances(stacks, stacks[2] @ turn).argmin() == 2
    assert least_distances(stacks, stacks[2] @ turn)[2] < 1e-6


def test_what_is_known_of_the_rotation_counts() -> None:
    rng = np.random.default_rng(0)
    turn = np.linalg.qr(rng.normal(size=(8, 8)))[0]
    pairs, stacks = rng.normal(size=(20, 8)), rng.normal(size=(6, 1, 8))
    stacks /= np.linalg.norm(stacks, axis=-1, keepdims=True)
    pairs /= np.linalg.norm(pairs, axis=-1, keepdims=True)
    keyed = stacks[4] @ turn
    assert np.ptp(least_distances(stacks, keyed)) < 1e-6
    fit = Fit.of(pairs, pairs @ turn)
    assert fit.misfit == pytest.approx(0, abs=1e-9)
    found = least_distances(stacks, keyed, fit)
    assert found.argmin() == 4
    assert np.sort(found)[1] > 0.1
