"""The law of CLIP."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from family_law import FamilyLaw, in_float64, other_spaces, transform_of, unmoved
from numpy.typing import NDArray
from transformers import CLIPConfig, CLIPModel

from triparty.common.errors import UnsupportedModelError
from triparty.common.keying import Bundle
from triparty.developer.answers import Task, task_of
from triparty.developer.answers.causal import Texts, keyed_inputs
from triparty.developer.answers.images import image_of, keyed_pixels, noise
from triparty.developer.answers.pairs import Pairs
from triparty.developer.protect import Choices, Survey, protect
from triparty.developer.protect.checkpoints import read_json
from triparty.developer.protect.families import FAMILIES
from triparty.developer.protect.families.clip import _vocabulary
from triparty.developer.protect.keys import Keys
from triparty.developer.protect.options import Options
from triparty.developer.protect.plans import Plan
from triparty.developer.protect.spaces import Norm, Scheme, Space, fixed, permuted, residual
from triparty.developer.protect.transforms import Monomial
from triparty.developer.stock import load_model

TEXT = {
    "vocab_size": 43,
    "hidden_size": 16,
    "intermediate_size": 20,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 12,
    "projection_dim": 10,
    "bos_token_id": 40,
    "eos_token_id": 41,
    "pad_token_id": 1,
}
VISION = {
    "hidden_size": 24,
    "intermediate_size": 18,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "image_size": 8,
    "patch_size": 4,
    "projection_dim": 10,
}


def clip(text: dict[str, Any] | None = None, **vision: Any) -> Any:
    return lambda: CLIPModel(
        CLIPConfig(
            text_config={**TEXT, **(text or {})},
            vision_config={**VISION, **vision},
            projection_dim=10,
        )
    )


def lone(kind: str) -> Any:
    """One space of each layer stays as it was, and what belongs to it does not."""

    def make(plan: Plan) -> Mapping[str, Space]:
        names = [name for name in plan.spaces if name.startswith(f"{kind}.")]
        return {name: fixed(plan.spaces[name].size) for name in names}

    return other_spaces(make)


class TestClip(FamilyLaw):
    interfaces: ClassVar = ("tokens",)
    models: ClassVar = {
        "end by its id": clip(),
        "end by the highest id": clip({"eos_token_id": 2}, num_channels=1, hidden_act="gelu"),
    }
    options: ClassVar = {"norms kept": {"norms": "keep", "interface": "tokens"}}
    controls: ClassVar = {
        "pixels not mixed by the cloud": unmoved("patch_embedding.weight", 1),
        "class row skipped": unmoved("class_embedding", 0),
        "positions of images skipped": unmoved("vision_model.embeddings.position_emb", 1),
        "positions of texts skipped": unmoved("text_model.embeddings.position_emb", 1),
        "rows of another vocabulary": unmoved("token_embedding", 0),
        "norm before the residual skipped": unmoved("pre_layrnorm.weight", 0),
        "its bias skipped": unmoved("pre_layrnorm.bias", 0),
        "norm weights skipped": unmoved("layer_norm2.weight", 0),
        "final norm of texts skipped": unmoved("final_layer_norm.bias", 0),
        "final norm of images skipped": unmoved("post_layernorm.weight", 0),
        "queries alone": lone("key"),
        "values alone": lone("mixed"),
        "neurons not permuted": unmoved("fc2.weight", 1),
        "two embedding spaces": unmoved("visual_projection", 0),
        "one key on either side of the first norm": unmoved("pre_layrnorm", 0),
    }

    def samples(self, task: Task, found: Survey) -> Iterator[Any]:
        yield pairs_for(found)

    def hidden_states(
        self, source: Path, out: Path, found: Survey
    ) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
        pairs, bundle = pairs_for(found), Bundle.open(out / "device")
        keyed = keyed_inputs(bundle, pairs.texts)["input_ids"]
        before = states(source, pairs.texts.ids, pairs.pixels)
        after = states(out / "model", keyed, keyed_pixels(bundle, pairs.pixels))
        for tower in ("text", "vision"):
            undo = transform_of(found, out, tower)
            real = pairs.texts.mask if tower == "text" else slice(None)
            assert len(before[tower]) == len(after[tower]) > 2
            for plain, hosted in zip(before[tower], after[tower], strict=True):
                yield plain[real], (hosted @ undo)[real]

    def test_images_and_texts_are_as_alike_as_before(self, scheme: str, tmp_path: Path) -> None:
        """The cloud's stock forward pass compares them; its scores are the original's."""
        source, found = self.protected("end by its id", f"{scheme}, tokens", tmp_path)
        pairs, bundle = pairs_for(found), Bundle.open(tmp_path / "out" / "device")
        keyed = keyed_inputs(bundle, pairs.texts)["input_ids"]
        with in_float64():
            plain = scores(source, pairs.texts.ids, pairs.pixels)
            hosted = scores(
                tmp_path / "out" / "model", keyed, keyed_pixels(bundle, pairs.pixels)
            )
        assert np.abs(plain - hosted).max() <= 1e-10 * np.abs(plain).max()

    def test_a_rotation_of_the_vision_residual_breaks_the_law(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The norm that feeds it scales each coordinate by itself: weights cannot follow."""
        source, found = self.protected("end by its id", "orthogonal, tokens", tmp_path)
        rotated = residual("r", 24, scheme=Scheme.ORTHOGONAL, norm=Norm.LAYER)
        wrong = other_spaces(lambda plan: {"vision": rotated})
        family = FAMILIES["clip"]
        plan = wrong(family.plan(found.options, found.choices, "CLIPModel"))
        monkeypatch.setitem(
            FAMILIES,  # type: ignore[arg-type]
            "clip",
            type(family)(
                family.model_type, family.architectures, family.known, lambda *_: plan
            ),
        )
        with pytest.raises(TypeError, match="mixed"):
            protect(str(source), tmp_path / "rotated", choices=found.choices)

    def test_the_cloud_knows_the_end_by_its_keyed_id(self, model: str, tmp_path: Path) -> None:
        _, found = self.protected(model, "permutation, tokens", tmp_path)
        config = read_json(tmp_path / "out" / "model" / "config.json")
        end = {"end by its id": 41, "end by the highest id": 42}[model]
        bundle = Bundle.open(tmp_path / "out" / "device")
        assert config["text_config"]["eos_token_id"] == bundle.keyed_ids(np.array([end]))[0]
        assert found.info.eos_ids == (end,)
        assert "eos_token_id" not in config or config["eos_token_id"] is None

    def test_sections_that_old_files_repeat_in_part_are_read(self) -> None:
        text = {**TEXT, "vocab_size": 49408, "bos_token_id": 0, "eos_token_id": 2}
        text |= {"max_position_embeddings": 77, "layer_norm_eps": 1e-5}
        left = ("max_position_embeddings", "vocab_size", "bos_token_id", "eos_token_id")
        part = {name: value for name, value in TEXT.items() if name not in left}
        document = {
            "text_config": text,
            "text_config_dict": part,
            "vision_config": {**VISION, "num_channels": 3},
            "vision_config_dict": VISION,
        }
        stock = CLIPConfig(**document)
        assert stock.text_config.eos_token_id == 49407
        family = FAMILIES["clip"]
        options, choices = Options(document, family.known), Choices.of(interface="tokens")
        plan = family.plan(options, choices, "CLIPModel")
        assert plan.token_ids == {"text_config.eos_token_id": 49407}
        assert plan.max_positions == stock.text_config.max_position_embeddings

    @pytest.mark.parametrize(
        ("changes", "choices", "says"),
        [
            ({}, {"interface": "embeddings"}, "token ids alone"),
            ({"vision_config": None}, {}, "vision_config"),
            ({"text_config": {**TEXT, "eos_token_id": 43}}, {}, "eos_token_id"),
            ({"text_config": {**TEXT, "eos_token_id": [41]}}, {}, "eos_token_id"),
            ({"text_config": {**TEXT, "num_attention_heads": 3}}, {}, "heads"),
            ({"text_config": {**TEXT, "model_type": "bert"}}, {}, "model_type"),
            ({"text_config_dict": {**TEXT, "hidden_size": 8}}, {}, "text_config_dict"),
            ({"text_config_dict": {"hidden_size": 16}}, {}, "text_config_dict"),  # defaults
            ({"text_config_dict": {**TEXT, "eos_token_id": 40}}, {}, "eos_token_id"),
            ({"vision_config_dict": {**VISION, "patch_size": 2}}, {}, "vision_config_dict"),
            ({"vision_config_dict": []}, {}, "vision_config_dict"),
            ({"vision_config": {**VISION, "hidden_act": "softmax"}}, {}, "hidden_act"),
            ({"vision_config": {**VISION, "image_size": 9}}, {}, "divide"),
        ],
    )
    def test_what_it_does_not_cover_is_refused(
        self, changes: dict[str, Any], choices: dict[str, Any], says: str
    ) -> None:
        family = FAMILIES["clip"]
        document = {"text_config": TEXT, "vision_config": VISION, **changes}
        with pytest.raises(UnsupportedModelError, match=says):
            family.plan(
                Options(document, family.known),
                Choices.of(**{"interface": "tokens", **choices}),
                "CLIPModel",
            )


def test_the_ends_keyed_id_is_never_two() -> None:
    moved = 0
    for seed in range(60):
        keys = Keys.of_seed(seed)
        free = permuted("vocabulary", 7).draw(keys)
        transform = _vocabulary(7, 4).draw(keys)
        assert isinstance(free, Monomial)
        assert isinstance(transform, Monomial)
        assert sorted(transform.index) == list(range(7))
        assert transform.order()[4] != 2
        moved += bool((free.index != transform.index).any())
    assert 0 < moved < 30


def pairs_for(found: Survey) -> Pairs:
    """Three texts, padded on the right, and three images, float64."""
    rng, (end,) = np.random.default_rng(3), found.info.eos_ids
    ids = rng.integers(0, 40, (3, 9))
    length = np.array([9, 6, 4])
    ids[np.arange(3), length - 1] = end
    mask = np.arange(9)[None] < length[:, None]
    pixels = noise(image_of(found.info), 3, rng).astype(np.float64)
    return Pairs(Texts(np.where(mask, ids, 0), mask), pixels)


def states(folder: Path, ids: NDArray[Any], pixels: NDArray[Any]) -> dict[str, Any]:
    """The residuals of both towers before each layer and after the last one."""
    model: Any = load_model(folder, task_of("image-text-embedding").auto_class)
    with torch.inference_mode():
        text = model.text_model(input_ids=torch.from_numpy(ids), output_hidden_states=True)
        vision = model.vision_model(
            pixel_values=torch.from_numpy(pixels), output_hidden_states=True
        )
    return {
        "text": [state.numpy() for state in text.hidden_states],
        "vision": [state.numpy() for state in vision.hidden_states],
    }


def scores(folder: Path, ids: NDArray[Any], pixels: NDArray[Any]) -> NDArray[np.float64]:
    """(B, B) how alike each image and each text are."""
    model: Any = load_model(folder, task_of("image-text-embedding").auto_class)
    with torch.inference_mode():
        output = model(input_ids=torch.from_numpy(ids), pixel_values=torch.from_numpy(pixels))
    alike: NDArray[np.float64] = output.logits_per_image.numpy()
    return alike
