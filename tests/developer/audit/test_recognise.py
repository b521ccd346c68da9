"""Recognising a public base: near 1 for what began as it, near 0 for all else."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from triparty.developer.audit.controls import unrelated_model
from triparty.developer.audit.recognise import (
    RECOGNISED,
    cached_candidates,
    likeness,
    recognised,
    shape_hint,
)
from triparty.developer.audit.views import ModelView
from triparty.developer.protect import Choices, protect

SMALL = pytest.mark.parametrize("model", ["stories_model", "capp_model"])


def trained_from_scratch(source: Path, folder: Path) -> Path:
    """A model of the same shape and statistics: every tensor's values in another order."""
    shutil.copytree(source, folder)
    rng = np.random.default_rng(0)
    for path in folder.glob("*.safetensors"):
        mixed = {
            name: rng.permutation(values.reshape(-1)).reshape(values.shape)
            for name, values in load_file(path).items()
        }
        save_file(mixed, path, {"format": "pt"})
    return folder


@SMALL
@pytest.mark.parametrize("scheme", ["permutation", "orthogonal"])
def test_a_fine_tuned_model_is_recognised_and_an_independent_one_is_not(
    model: str, scheme: str, request: Any, drifted: Any, tmp_path: Path
) -> None:
    base: Path = request.getfixturevalue(model)
    other = trained_from_scratch(base, tmp_path / "other")
    protect(str(drifted(base, 0.3)), tmp_path / "out", choices=Choices.of(scheme=scheme))
    hosted = ModelView.open(tmp_path / "out" / "model")
    (first, score), (second, chance) = recognised(hosted, [other, base])
    assert (first, second) == (base.name, "other")
    assert score > 0.8 > RECOGNISED > 0.2 > chance


@SMALL
def test_an_unprotected_model_is_compared_alike(model: str, request: Any, drifted: Any) -> None:
    base: Path = request.getfixturevalue(model)
    assert likeness(ModelView.open(base), ModelView.open(base)) == pytest.approx(1.0)
    assert likeness(ModelView.open(base), ModelView.open(drifted(base, 0.1))) > 0.95
    assert likeness(unrelated_model(ModelView.open(base)), ModelView.open(base)) < 0.2


def test_two_models_trained_apart_do_not_look_alike(make_model: Any) -> None:
    """The same architecture with weights from two seeds."""
    sizes = {"hidden_size": 48, "intermediate_size": 160, "num_hidden_layers": 4}
    first = ModelView.open(make_model("llama", **sizes))
    assert likeness(unrelated_model(first), first) < 0.1


def test_candidates_that_cannot_be_compared_are_left_out(
    stories_model: Path, capp_model: Path, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "mamba"}')
    hosted = ModelView.open(stories_model)
    found = recognised(hosted, [capp_model, tmp_path, tmp_path / "absent", stories_model])
    assert [name for name, _ in found] == [stories_model.name]


def test_the_cache_is_searched_for_models_of_the_shape(
    stories_model: Path, capp_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = json.loads((stories_model / "config.json").read_text())
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "absent"))
    monkeypatch.setattr(
        "huggingface_hub.utils._cache_manager.HF_HUB_CACHE", str(tmp_path / "absent")
    )
    assert cached_candidates(config) == []
    cache = tmp_path / "hub"
    for source in (stories_model, capp_model):
        snapshot = cache / f"models--us--{source.name}" / "snapshots" / ("0" * 40)
        shutil.copytree(source, snapshot)
        (snapshot.parent.parent / "refs").mkdir()
        (snapshot.parent.parent / "refs" / "main").write_text("0" * 40)
    monkeypatch.setattr("huggingface_hub.utils._cache_manager.HF_HUB_CACHE", str(cache))
    (folder,) = cached_candidates(config)
    assert folder.parent.parent.name == "models--us--stories260K"
    assert recognised(ModelView.open(stories_model), [folder])[0][0] == "us/stories260K"


def test_shapes_of_public_models_are_known(stories_model: Path) -> None:
    llama = {"model_type": "llama", "hidden_size": 4096, "num_hidden_layers": 32}
    assert shape_hint({**llama, "vocab_size": 128256}) == "Llama-3-8B or -3.1-8B"
    gpt2 = {"model_type": "gpt2", "n_embd": 768, "n_layer": 12, "vocab_size": 50257}
    assert shape_hint(gpt2) == "gpt2"
    assert shape_hint(json.loads((stories_model / "config.json").read_text())) is None
