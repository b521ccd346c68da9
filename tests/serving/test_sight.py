"""A decoder that sees: two parts of one stock model, loaded and run like any others."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from tiny_llava import SIZE, tiny_llava
from transformers import LlavaForConditionalGeneration

from triparty.cloud.serving.engine import Image, Reply, ReplyKind, SeeingEngine, Work
from triparty.cloud.serving.placement import Placement
from triparty.cloud.serving.sight import load_seeing
from triparty.common.errors import CheckpointError, UnsupportedModelError


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llava(tmp_path_factory.mktemp("llava"))


def images(count: int) -> list[Image]:
    rng = np.random.default_rng(1)
    return [
        Image(rng.normal(size=(3, SIZE, SIZE)).astype(np.float32), 10) for _ in range(count)
    ]


def test_rows_of_images_and_answers_about_them_are_the_stock_models(folder: Path) -> None:
    loaded = load_seeing(folder, Placement())
    assert isinstance(loaded, SeeingEngine)
    stock: Any = LlavaForConditionalGeneration.from_pretrained(folder)
    given = images(3)
    pixels = torch.from_numpy(np.stack([image.pixels for image in given]))
    with torch.inference_mode():
        expected = torch.stack(stock.get_image_features(pixel_values=pixels).pooler_output)
    together = [rows for (rows,) in loaded.sight.run(given)]
    for image, rows, wanted in zip(given, together, expected.numpy(), strict=True):
        (alone,) = loaded.sight.run([image])
        assert np.abs(rows - wanted).max() <= 1e-5 * np.abs(wanted).max()
        assert np.abs(alone[0] - wanted).max() <= 1e-5 * np.abs(wanted).max()
    rows = np.concatenate([np.ones((2, 32), np.float32), together[0]])
    work = Work("s", 0, rows, Reply(ReplyKind.LOGITS))
    ((logits,),) = loaded.engine.run([work])
    with torch.inference_mode():
        whole = stock(inputs_embeds=torch.from_numpy(rows)[None]).logits[0, -1].numpy()
    assert np.abs(logits[0] - whole).max() <= 1e-5 * np.abs(whole).max()


@pytest.mark.parametrize(
    ("section", "changes", "error", "says"),
    [
        ("text_config", {"model_type": "mistral"}, UnsupportedModelError, "'mistral'"),
        ("vision_config", {"model_type": "siglip"}, UnsupportedModelError, "'siglip'"),
        ("text_config", {"num_hidden_layers": 10**6}, CheckpointError, "layers"),
        ("vision_config", {"num_hidden_layers": 10**6}, CheckpointError, "layers"),
        ("vision_config", {"image_size": 13}, CheckpointError, "patches divide"),
        ("text_config", {"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}},
         UnsupportedModelError, "dynamic"),
        (None, {"vision_feature_layer": 9}, CheckpointError, "does not run"),
        (None, {"text_config": None}, CheckpointError, "no text_config"),
        (None, {"quantization_config": {}}, UnsupportedModelError, "quantization_config"),
    ],
)  # fmt: skip
def test_what_is_not_served_is_refused(
    folder: Path, tmp_path: Path, section: str | None, changes: Any, error: Any, says: str
) -> None:
    target = tmp_path / "changed"
    shutil.copytree(folder, target)
    config = json.loads((target / "config.json").read_text())
    (config if section is None else config[section]).update(changes)
    if "rope_scaling" in changes:
        del config["text_config"]["rope_parameters"]
    (target / "config.json").write_text(json.dumps(config))
    with pytest.raises(error, match=says):
        load_seeing(target, Placement())


def test_every_tensor_is_the_models(folder: Path, tmp_path: Path) -> None:
    target = tmp_path / "changed"
    shutil.copytree(folder, target)
    whole = load_file(target / "model.safetensors")
    for changed, says in (
        ({**whole, "surprise": np.zeros(3, np.float32)}, "surprise"),
        ({n: t for n, t in whole.items() if "linear_1.bias" not in n}, "linear_1.bias"),
        (
            {n: t[:1] if "linear_1.weight" in n else t for n, t in whole.items()},
            "linear_1.weight has shape",
        ),
    ):
        save_file(changed, target / "model.safetensors", {"format": "pt"})
        with pytest.raises(CheckpointError, match=says):
            load_seeing(target, Placement())
