"""Scenes to attack: small models, protected for the test."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

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
