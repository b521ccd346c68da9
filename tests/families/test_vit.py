"""The law of ViT."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from family_law import (
    FamilyLaw,
    alone,
    other_spaces,
    over_all_heads,
    transform_of,
    unmoved,
    values_of,
)
from numpy.typing import NDArray
from transformers import ViTConfig, ViTForImageClassification

from triparty.common.errors import UnsupportedModelError
from triparty.common.keying import Bundle
from triparty.developer.answers import Task
from triparty.developer.answers.images import image_of, keyed_pixels, noise
from triparty.developer.protect import Choices, Survey, protect
from triparty.developer.protect.checkpoints import read_json
from triparty.developer.protect.families import FAMILIES
from triparty.developer.protect.options import Options
from triparty.developer.stock import load_model

TINY = {
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 20,
    "image_size": 12,
    "patch_size": 4,
    "num_channels": 3,
    "id2label": {number: f"name {number}" for number in range(7)},
}


def vit(**options: Any) -> Any:
    return lambda: ViTForImageClassification(ViTConfig(**{**TINY, **options}))


class TestVit(FamilyLaw):
    interfaces: ClassVar = ("embeddings",)
    models: ClassVar = {
        "biases": vit(),
        "no biases": vit(qkv_bias=False, hidden_act="relu"),
        "one channel, sizes as lists": vit(
            num_channels=1, image_size=[14, 14], patch_size=[7, 7]
        ),
    }
    options: ClassVar = {
        "norms kept": {"norms": "keep"},
        "scaled labels": {"scheme": "orthogonal", "head_scales": True},
    }
    controls: ClassVar = {
        "pixels not mixed by the cloud": unmoved("projection.weight", 1),
        "class row skipped": unmoved("cls_token", 0),
        "positions skipped": unmoved("position_embeddings", 1),
        "norm weights skipped": unmoved("layernorm_before.weight", 0),
        "the final norm's bias skipped": unmoved("vit.layernorm.bias", 0),
        "queries alone": alone("key"),
        "values alone": alone("mixed"),
        "one permutation over all heads": other_spaces(over_all_heads),
        "neurons not permuted": unmoved("layer.{l}.output.dense.weight", 1),
        "labels of another key": unmoved("classifier", 0),
    }

    def samples(self, task: Task, found: Survey) -> Iterator[Any]:
        yield pixels_for(found)

    def hidden_states(
        self, source: Path, out: Path, found: Survey
    ) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
        pixels = pixels_for(found)
        keyed = keyed_pixels(Bundle.open(out / "device"), pixels)
        residual = transform_of(found, out, "residual")
        before = states(source, pixels)
        after = states(out / "model", keyed)
        assert len(before) == len(after) > 2
        for plain, hosted in zip(before, after, strict=True):
            yield plain, hosted @ residual

    def test_a_mix_that_is_not_inverted_breaks_the_law(self, tmp_path: Path) -> None:
        """What the convolution reads must be undone, not done twice."""
        source, found = self.protected("biases", "orthogonal, embeddings", tmp_path)
        out = tmp_path / "out"
        bundle = Bundle.open(out / "device")
        pixels = pixels_for(found)
        right = keyed_pixels(bundle, pixels)
        assert bundle._mix is not None
        object.__setattr__(bundle, "_mix", np.linalg.inv(bundle._mix))
        original, hosted = states(source, pixels)[-1], out / "model"
        residual = transform_of(found, out, "residual")

        def error(sent: NDArray[Any]) -> float:
            return float(np.abs(states(hosted, sent)[-1] @ residual - original).max())

        assert error(right) < 1e-5
        assert error(keyed_pixels(bundle, pixels)) > 1e-2
        assert error(pixels) > 1e-2

    def test_the_cloud_has_numbers_for_names(self, scheme: str, tmp_path: Path) -> None:
        source = self.source("biases", tmp_path)
        protect(str(source), tmp_path / "out", choices=Choices.of(scheme=scheme))
        config = read_json(tmp_path / "out" / "model" / "config.json")
        assert config["id2label"] == {str(number): f"LABEL_{number}" for number in range(7)}
        assert "name" not in (tmp_path / "out" / "model" / "config.json").read_text()
        labels = Bundle.open(tmp_path / "out" / "device").labels()
        assert labels == tuple(f"name {number}" for number in range(7))

    def test_norm_biases_are_folded_where_readers_have_one(
        self, scheme: str, tmp_path: Path
    ) -> None:
        source = self.source("biases", tmp_path)
        protect(str(source), tmp_path / "out", choices=Choices.of(scheme=scheme))
        hosted = values_of(tmp_path / "out" / "model")
        for norm in ("encoder.layer.0.layernorm_before", "layernorm"):
            assert not hosted[f"vit.{norm}.bias"].any()

    def test_the_device_has_the_preprocessing(self, tmp_path: Path) -> None:
        source = self.source("biases", tmp_path)
        (source / "preprocessor_config.json").write_text(
            '{"do_resize": true, "image_mean": [0.5], "name_or_path": "/home/me/secret"}'
        )
        protect(str(source), tmp_path / "out")
        kept = read_json(tmp_path / "out" / "device" / "preprocessor_config.json")
        assert kept == {"do_resize": True, "image_mean": [0.5]}
        assert not (tmp_path / "out" / "model" / "preprocessor_config.json").exists()

    @pytest.mark.parametrize(
        ("changes", "choices", "says"),
        [
            ({"image_size": [12, 16]}, {}, "not square"),
            ({"patch_size": 5}, {}, "divide"),
            ({"patch_size": "4"}, {}, "positive number"),
            ({"num_attention_heads": 5}, {}, "heads"),
            ({"id2label": {"0": "a", "2": "b"}}, {}, "id2label"),
            ({"hidden_act": "softmax"}, {}, "hidden_act"),
            ({}, {"interface": "tokens"}, "images alone"),
            ({}, {"scheme": "orthogonal", "expand": 48}, "expanded"),
        ],
    )
    def test_what_it_does_not_cover_is_refused(
        self, changes: dict[str, Any], choices: dict[str, Any], says: str
    ) -> None:
        family = FAMILIES["vit"]
        options = Options({**TINY, **changes}, family.known)
        with pytest.raises(UnsupportedModelError, match=says):
            family.plan(options, Choices.of(**choices), family.architectures[0])


def pixels_for(found: Survey) -> NDArray[np.float64]:
    """Five images of noise, float64."""
    return noise(image_of(found.info), 5, np.random.default_rng(3)).astype(np.float64)


def states(folder: Path, pixels: NDArray[Any]) -> list[NDArray[Any]]:
    """The residual (B, N, D) before each layer and after the last one."""
    model = load_model(folder, "AutoModelForImageClassification")
    with torch.inference_mode():
        output = model(pixel_values=torch.from_numpy(pixels), output_hidden_states=True)
    return [state.numpy() for state in output.hidden_states]
