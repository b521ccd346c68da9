"""A trained ViT: the protected one sees the same digits; without keys, none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from triparty.common.keying import Bundle
from triparty.developer.answers.images import ImageTask, keyed_pixels
from triparty.developer.protect import Choices, protect
from triparty.developer.protect.checkpoints import read_json
from triparty.developer.stock import load_model
from triparty.developer.verify import Comparison

CHOICES = {
    "permutation": {},
    "permutation, norms kept": {"norms": "keep"},
    "orthogonal": {"scheme": "orthogonal"},
}


@pytest.fixture(scope="module", params=sorted(CHOICES))
def trained(
    request: pytest.FixtureRequest, test_data: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path]:
    source = test_data / "models" / "vit-mnist3-hf"
    out = tmp_path_factory.mktemp("protected") / "out"
    protect(str(source), out, choices=Choices.of(**CHOICES[request.param]), seed=3)  # type: ignore[arg-type]
    return source, out


STROKES = {
    0: [(0, -8), (5, -4), (5, 4), (0, 8), (-5, 4), (-5, -4), (0, -8)],
    1: [(0, -8), (0, 8)],
    2: [(-5, -5), (-2, -8), (3, -8), (5, -5), (4, -1), (-5, 8), (5, 8)],
}
"""Corners (x, y) of a digit's stroke, in pixels from the middle of the image."""


def digits(count: int, source: Path, rng: np.random.Generator) -> NDArray[np.float32]:
    """Drawn digits (count, 1, 28, 28), normalised as the model expects them.

    Each is a stroke of spots, turned, scaled, moved and of a width at random.
    """
    images = np.stack([drawn(STROKES[int(rng.integers(3))], rng) for _ in range(count)])
    config = read_json(source / "preprocessor_config.json")
    mean, std = config["image_mean"][0], config["image_std"][0]
    return ((images[:, None] - mean) / std).astype(np.float32)


def drawn(corners: list[tuple[int, int]], rng: np.random.Generator) -> NDArray[np.float64]:
    """The ink (28, 28) of one stroke, from 0 to 1."""
    along = np.linspace(0, len(corners) - 1, 60)
    points = np.array(
        [np.interp(along, range(len(corners)), axis) for axis in zip(*corners, strict=True)]
    )
    angle, size = rng.normal(0, 0.15), rng.uniform(0.8, 1.1)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    x, y = size * turn @ points + rng.normal(0, 1.5, (2, 1)) + 13.5
    row, column = np.mgrid[:28, :28, :1][:2]
    distance = (column - x) ** 2 + (row - y) ** 2
    ink: NDArray[np.float64] = np.exp(-distance.min(axis=-1) / rng.uniform(1, 3))
    return ink


def answers(
    trained: tuple[Path, Path], pixels: NDArray[np.float32]
) -> tuple[NDArray[Any], NDArray[Any]]:
    source, out = trained
    task, bundle = ImageTask(), Bundle.open(out / "device")
    original = load_model(source, task.auto_class)
    hosted = load_model(out / "model", task.auto_class)
    return task.original(original, pixels), task.protected(hosted, bundle, pixels)


def check(trained: tuple[Path, Path], count: int) -> None:
    pixels = digits(count, trained[0], np.random.default_rng(4))
    plain, undone = answers(trained, pixels)
    assert len(set(plain.argmax(-1).tolist())) == 3
    assert (plain.argmax(-1) == undone.argmax(-1)).all()
    assert np.abs(plain - undone).max() <= 1e-5 * np.abs(plain).max()


def test_drawn_digits_are_seen_alike(trained: tuple[Path, Path]) -> None:
    check(trained, 1_000)


@pytest.mark.slow
def test_ten_thousand_drawn_digits_are_seen_alike(trained: tuple[Path, Path]) -> None:
    check(trained, 10_000)


def test_noise_is_seen_alike(trained: tuple[Path, Path]) -> None:
    source, out = trained
    found = Comparison(str(source), out).agreement(1_000, rng=np.random.default_rng(1))
    assert found.samples == 1_000
    assert found.top1_agreement == 1.0
    assert found.max_relative_error <= 1e-5
    assert found.greedy_identical is None


def test_without_keys_agreement_is_chance(trained: tuple[Path, Path]) -> None:
    """Plain pixels in, or keyed ones with the answer read as it comes."""
    source, out = trained
    pixels = digits(300, source, np.random.default_rng(4))
    plain, _ = answers(trained, pixels)
    hosted = load_model(out / "model", ImageTask.auto_class)
    bundle = Bundle.open(out / "device")
    with torch.inference_mode():
        unmixed = hosted(pixel_values=torch.from_numpy(pixels)).logits.numpy()
        keyed = hosted(
            pixel_values=torch.from_numpy(keyed_pixels(bundle, pixels))
        ).logits.numpy()
    right = plain.argmax(-1)
    assert (bundle.plain_logits(unmixed).argmax(-1) == right).mean() < 0.8
    assert (keyed.argmax(-1) == right).mean() < 0.2
