"""A second instance is made when an attack needs one, and only then."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from triparty.common.errors import SettingsError, StateError
from triparty.developer.audit import Knowledge, Level, Target, set_scene
from triparty.developer.audit import instances as module
from triparty.developer.audit.claims import Seen
from triparty.developer.audit.instances import compiled_again, wanting
from triparty.developer.audit.knowledge import given
from triparty.developer.audit.scene import with_other
from triparty.developer.protect import Choices, protect


class Comparing:
    """An attack that needs two instances, and perhaps something that nobody has."""

    name, level, target = "comparing", Level.K0, Target.KEY
    cites, means, remedy = "a test", "Nothing.", "Nothing."

    def __init__(self, *, impossible: bool = False) -> None:
        self.impossible = impossible

    def lacks(self, knowledge: Knowledge) -> str | None:
        if self.impossible:
            return "it never works"
        return None if knowledge.other else "there is no second instance"

    def mount(self, knowledge: Knowledge) -> Seen:
        return Seen({})

    def control(self, knowledge: Knowledge) -> Knowledge:
        return knowledge


@pytest.fixture
def made(make_model: Any, tmp_path: Path) -> tuple[str, Path]:
    source, out = make_model("llama"), tmp_path / "out"
    protect(str(source), out, choices=Choices.of(scheme="orthogonal"))
    return str(source), out


def test_only_what_a_second_instance_would_help_wants_one(made: tuple[str, Path]) -> None:
    scene, comparing = set_scene(*made), Comparing()
    assert wanting(scene, [comparing, Comparing(impossible=True)]) == [comparing]


def test_the_second_instance_has_a_key_of_its_own(
    made: tuple[str, Path], tmp_path: Path
) -> None:
    source, out = made
    assert compiled_again(source, out, tmp_path / "other")
    scene = with_other(set_scene(source, out), source, tmp_path / "other")
    other = given(scene.truth.other_key)
    assert other.shape == scene.truth.key.shape
    assert np.abs(other - scene.truth.key).max() > 0.1
    rows = given(scene.knowledge.other)
    assert rows.architecture == "LlamaForCausalLM"
    assert wanting(scene, [Comparing()]) == []


def test_large_models_are_not_compiled_by_the_way(
    made: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_COMPILED_BYTES", 1000)
    assert not compiled_again(*made, tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_another_instance_is_of_the_same_original(
    made: tuple[str, Path], make_model: Any, tmp_path: Path
) -> None:
    source, out = made
    with pytest.raises(SettingsError, match="same key"):
        set_scene(source, out, other=out)
    protect(source, tmp_path / "wide", choices=Choices.of(scheme="orthogonal", expand=40))
    with pytest.raises(SettingsError, match="width 40"):
        set_scene(source, out, other=tmp_path / "wide")
    with pytest.raises(StateError):
        set_scene(source, out, other=tmp_path)
