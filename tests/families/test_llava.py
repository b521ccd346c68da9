"""The law of LLaVA."""

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
    in_float64,
    other_spaces,
    over_all_heads,
    transform_of,
    unmoved,
    values_of,
)
from numpy.typing import NDArray
from safetensors.numpy import save_file
from transformers import (
    CLIPVisionConfig,
    DynamicCache,
    GenerationConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
)

from triparty.common.deviceinfo import DeviceInfo
from triparty.common.errors import CheckpointError, UnsupportedModelError
from triparty.common.keying import Bundle
from triparty.developer.answers import Task, task_of
from triparty.developer.answers.causal import Texts
from triparty.developer.answers.images import image_of, noise
from triparty.developer.answers.visual import (
    VisualTexts,
    keyed_visual_inputs,
    with_image,
    words_of,
)
from triparty.developer.protect import Choices, Survey, protect
from triparty.developer.protect.checkpoints import read_json
from triparty.developer.protect.families import FAMILIES
from triparty.developer.protect.options import Options
from triparty.developer.stock import load_model

TEXT = {
    "vocab_size": 53,
    "hidden_size": 24,
    "intermediate_size": 20,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": None,
}
VISION = {
    "hidden_size": 16,
    "intermediate_size": 18,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "image_size": 8,
    "patch_size": 4,
}
IMAGE_TOKEN = 47


def llava(text: dict[str, Any] | None = None, **options: Any) -> Any:
    given = {"image_token_index": IMAGE_TOKEN, "image_seq_length": 4, **options}
    return lambda: LlavaForConditionalGeneration(
        LlavaConfig(
            text_config=LlamaConfig(**{**TEXT, **(text or {})}),
            vision_config=CLIPVisionConfig(**VISION),
            **given,
        )
    )


class TestLlava(FamilyLaw):
    models: ClassVar = {
        "grouped queries": llava(),
        "tied, class row read, no biases": llava(
            {"tie_word_embeddings": True},
            vision_feature_select_strategy="full",
            multimodal_projector_bias=False,
            image_seq_length=5,
        ),
        "two layers read": llava(vision_feature_layer=[-2, -1], projector_hidden_act="relu"),
    }
    options: ClassVar = {
        "norms kept": {"norms": "keep"},
        "scaled head": {"scheme": "orthogonal", "head_scales": True},
    }
    controls: ClassVar = {
        "pixels not mixed by the cloud": unmoved("patch_embedding.weight", 1),
        "class row skipped": unmoved("class_embedding", 0),
        "positions skipped": unmoved("position_embedding", 1),
        "norm of the tower skipped": unmoved("pre_layrnorm.weight", 0),
        "norm weights skipped": unmoved("layernorm.weight", 0),
        "projector's first layer skipped": unmoved("linear_1.weight", 1),
        "projector's neurons skipped": unmoved("linear_1.bias", 0),
        "projector's second layer skipped": unmoved("linear_2", 0),
        "gate not permuted": alone("gate"),
        "queries alone": alone("key"),
        "queries of the tower alone": alone("key.vision"),
        "one permutation over all heads": other_spaces(over_all_heads),
    }

    def samples(self, task: Task, found: Survey) -> Iterator[Any]:
        """One image a text, with padding on either side."""
        whole = texts_for(found.info)
        length = whole.texts.ids.shape[1]
        places, cut = np.arange(length)[None], np.array([[0], [1], [3]])
        for mask in (places >= 0, places >= cut, places < length - cut):
            of_each = np.repeat(mask, len(cut), axis=0) if len(mask) == 1 else mask
            yield VisualTexts(Texts(whole.texts.ids, of_each), whole.pixels)

    def hidden_states(
        self, source: Path, out: Path, found: Survey
    ) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
        """The residual of the text, and the rows of the images that are put there."""
        sample = texts_for(found.info)
        inputs = keyed_visual_inputs(Bundle.open(out / "device"), sample)
        plain = states(source, {"input_ids": sample.texts.ids, "pixel_values": sample.pixels})
        keyed = states(out / "model", inputs)
        residual = transform_of(found, out, "residual")
        assert len(plain) == len(keyed) > 2
        for before, after in zip(plain, keyed, strict=True):
            yield before, after @ residual

    def test_answers_depend_on_the_image(self, tmp_path: Path) -> None:
        source = self.source("grouped queries", tmp_path)
        protect(str(source), tmp_path / "out")
        bundle, task = Bundle.open(tmp_path / "out" / "device"), task_of("image-text-to-text")
        hosted = load_model(tmp_path / "out" / "model", task.auto_class)
        sample = texts_for(bundle.info)
        other = VisualTexts(sample.texts, sample.pixels[::-1].copy())
        first, second = (task.protected(hosted, bundle, one) for one in (sample, other))
        assert np.abs(first - second).max() > 1e-2 * np.abs(first).max()

    def test_greedy_text_about_an_image_is_the_originals(
        self, model: str, choice: str, tmp_path: Path
    ) -> None:
        source, found = self.protected(model, choice, tmp_path)
        task, steps = task_of(found.plan.task), 10
        original = load_model(source, task.auto_class)
        hosted = load_model(tmp_path / "out" / "model", task.auto_class)
        bundle, sample = Bundle.open(tmp_path / "out" / "device"), texts_for(found.info, 1)
        given = {"input_ids": sample.texts.ids, "pixel_values": sample.pixels}
        inputs = keyed_visual_inputs(bundle, sample)
        with in_float64():
            expected = generated(original, given, steps)
            if found.info.interface == "tokens":
                keyed = generated(hosted, inputs, steps)
                assert bundle.plain_ids(np.array(keyed)).tolist() == expected
            else:
                assert by_rows(hosted, bundle, inputs, steps) == expected

    def test_an_image_is_where_rows_are_zeros(self, tmp_path: Path) -> None:
        source = self.source("grouped queries", tmp_path)
        protect(str(source), tmp_path / "out")
        bundle = Bundle.open(tmp_path / "out" / "device")
        ids = np.array([3, IMAGE_TOKEN, 4])
        rows = bundle.values(ids, start=0, images=True)
        assert (rows[1] == 0).all()
        assert rows[[0, 2]].any(axis=1).all()
        sent = bundle.rows(ids, start=0, images=True).as_float32()
        assert (sent == rows).all()
        assert bundle.values(ids, start=0)[1].any()

    @pytest.mark.parametrize("interface", ["embeddings", "tokens"])
    def test_the_cloud_knows_the_image_token_by_its_keyed_id(
        self, interface: str, tmp_path: Path
    ) -> None:
        source = self.source("tied, class row read, no biases", tmp_path)
        found = protect(
            str(source), tmp_path / "out", choices=Choices.of(interface=interface), seed=1
        )
        config = read_json(tmp_path / "out" / "model" / "config.json")
        bundle = Bundle.open(tmp_path / "out" / "device")
        keyed = {"embeddings": 0, "tokens": int(bundle.keyed_ids(np.array([IMAGE_TOKEN]))[0])}
        assert config["image_token_index"] == keyed[interface]
        assert "image_token_id" not in config
        assert config["tie_word_embeddings"] is False
        assert config["text_config"]["tie_word_embeddings"] is False
        assert (config["text_config"]["eos_token_id"] is None) == (interface == "embeddings")
        image = found.info.image
        assert image is not None
        assert (image.token_id, image.tokens) == (IMAGE_TOKEN, 5)
        assert found.info.eos_ids == (1,)
        assert DeviceInfo.from_json(found.info.to_json()) == found.info

    @pytest.mark.parametrize("naming", ["hub", "inside"])
    def test_names_of_other_versions_are_known(self, naming: str, tmp_path: Path) -> None:
        source, found = self.protected("grouped queries", "permutation, tokens", tmp_path)
        renamed = {}
        for name, values in values_of(source).items():
            renamed[NAMINGS[naming](name)] = values
        assert renamed.keys() != values_of(source).keys()
        save_file(renamed, source / "model.safetensors", {"format": "pt"})
        again = protect(str(source), tmp_path / "again", choices=found.choices)
        with in_float64():
            assert self.disagreement(source, tmp_path / "again", again) <= 1e-10

    @pytest.mark.parametrize(
        ("changes", "choices", "says"),
        [
            ({}, {"scheme": "orthogonal", "expand": 48}, "expanded"),
            ({"image_token_index": 53}, {}, "image_token_index"),
            ({"vision_feature_layer": "last"}, {}, "vision_feature_layer"),
            ({"vision_feature_select_strategy": "some"}, {}, "select_strategy"),
            ({"projector_hidden_act": "softmax"}, {}, "projector_hidden_act"),
            ({"text_config": {**TEXT, "model_type": "mistral"}}, {}, "model_type"),
            ({"vision_config": {**VISION, "model_type": "siglip"}}, {}, "model_type"),
            ({"vision_config": {**VISION, "image_size": [8, 12]}}, {}, "not square"),
        ],
    )
    def test_what_it_does_not_cover_is_refused(
        self, changes: dict[str, Any], choices: dict[str, Any], says: str
    ) -> None:
        family = FAMILIES["llava"]
        document = {
            "text_config": TEXT,
            "vision_config": VISION,
            "image_token_index": IMAGE_TOKEN,
            **changes,
        }
        with pytest.raises(UnsupportedModelError, match=says):
            family.plan(
                Options(document, family.known), Choices.of(**choices), family.architectures[0]
            )

    def test_a_device_refuses_tokens_that_no_image_takes(self, tmp_path: Path) -> None:
        _, found = self.protected("grouped queries", "norms kept", tmp_path)
        data = found.info.to_json()
        for before, after in (
            (b'"tokens": 4', b'"tokens": 0'),
            (b'"token_id": 47', b'"token_id": null'),
            (b'"token_id": 47', b'"token_id": 53'),
            (b'"token_id": 47', b'"token_id": "47"'),
        ):
            assert before in data
            with pytest.raises(CheckpointError):
                DeviceInfo.from_json(data.replace(before, after))


def hub_name(name: str) -> str:
    """As the first checkpoints have it."""
    return name.replace("vision_tower.", "vision_tower.vision_model.")


def inner_name(name: str) -> str:
    """As the stock class names it inside."""
    name = name.replace("language_model.lm_head", "lm_head")
    name = name.replace("language_model.model.", "language_model.")
    return name if name.startswith("lm_head") else f"model.{name}"


NAMINGS = {"hub": hub_name, "inside": inner_name}


def texts_for(info: DeviceInfo, count: int = 3) -> VisualTexts:
    """Texts with an image in the middle, float64."""
    rng = np.random.default_rng(3)
    ids = with_image(info, words_of(info, (count, 9), rng), at=4)
    pixels = noise(image_of(info), count, rng).astype(np.float64)
    return VisualTexts(Texts.unpadded(ids), pixels)


def tensors_of(inputs: dict[str, NDArray[Any]]) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(array) for name, array in inputs.items()}


def states(folder: Path, inputs: dict[str, NDArray[Any]]) -> list[NDArray[Any]]:
    """The residual of the text before each layer, and the rows of the images."""
    model: Any = load_model(folder, task_of("image-text-to-text").auto_class)
    with torch.inference_mode():
        output = model(**tensors_of(inputs), output_hidden_states=True)
    return [state.numpy() for state in (*output.hidden_states[:-1], output.image_hidden_states)]


def generated(model: Any, inputs: dict[str, NDArray[Any]], steps: int) -> list[int]:
    """What stock `generate` adds, greedily."""
    model.generation_config = GenerationConfig(do_sample=False, pad_token_id=0)
    length = inputs["input_ids"].shape[1]
    tensors = tensors_of(inputs)
    mask = torch.ones_like(tensors["input_ids"])
    with torch.inference_mode():
        whole = model.generate(**tensors, attention_mask=mask, max_new_tokens=steps)
    new: list[int] = whole[0, length:].tolist()
    return new


def by_rows(
    model: Any, bundle: Bundle, inputs: dict[str, NDArray[Any]], steps: int
) -> list[int]:
    """The same by rows: the image with the first ones, the cloud keeps the cache."""
    cache, new = DynamicCache(config=model.config.get_text_config()), list[int]()
    for _ in range(steps):
        with torch.inference_mode():
            reply = model(**tensors_of(inputs), past_key_values=cache, use_cache=True)
        logits = bundle.plain_logits(reply.logits[0, -1].numpy())
        new.append(int(logits.argmax()))
        inputs = {"inputs_embeds": bundle.values(np.array(new[-1:]), start=0)[None]}
    return new
