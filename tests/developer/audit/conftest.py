"""Scenes to attack: small models, protected for the test."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from triparty.developer.audit import Scene, set_scene
from triparty.developer.protect import Choices, protect

SetScene = Callable[..., Scene]


@pytest.fixture
def scene_of(tmp_path: Path) -> SetScene:
    """Protects a checkpoint and sets the scene: `scene_of(source, scheme="orthogonal")`.

    With `instances=2` the scene has a second instance under another key; `base` is the public
    model that the source was trained from.
    """

    def of(
        source: Path, *, instances: int = 1, base: Path | None = None, **words: str
    ) -> Scene:
        outs = [tmp_path / f"{source.name}-{words.get('scheme')}-{n}" for n in range(instances)]
        for out in outs:
            protect(str(source), out, choices=Choices.of(**words))
        return set_scene(
            str(source), outs[0], base=base, other=outs[1] if instances > 1 else None
        )

    return of


@pytest.fixture
def drifted(tmp_path: Path) -> Callable[[Path, float], Path]:
    """Copies a checkpoint with noise on all weights: a base from which it was trained."""

    def of(source: Path, share: float) -> Path:
        folder = tmp_path / f"base-{source.name}-{share}"
        shutil.copytree(source, folder, copy_function=shutil.copyfile)
        rng = np.random.default_rng(3)
        for path in folder.glob("*.safetensors"):
            noisy = {
                name: values + share * values.std() * rng.normal(size=values.shape)
                for name, values in load_file(path).items()
            }
            made = {name: values.astype(np.float32) for name, values in noisy.items()}
            save_file(made, path, {"format": "pt"})
        return folder

    return of
