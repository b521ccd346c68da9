"""What the public has: the same table, a base that the original names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from triparty.developer.audit.exposure import (
    declared_base,
    exposure_of,
    nearest_table,
    table_share,
)
from triparty.developer.audit.views import ModelView
from triparty.developer.protect import protect
from triparty.developer.protect.checkpoints import Checkpoint

RNG = np.random.default_rng(4)
TABLE = RNG.normal(size=(200, 16)).astype(np.float32)


def test_rows_that_hardly_moved_are_the_same() -> None:
    trained = TABLE.copy()
    trained[:50] += RNG.normal(size=(50, 16)).astype(np.float32)
    assert table_share(TABLE, TABLE) == 1.0
    assert table_share(TABLE, trained * 1.001) == 0.75
    assert table_share(TABLE, RNG.normal(size=(200, 16)).astype(np.float32)) == 0.0


def test_a_longer_or_wider_table_is_compared_as_far_as_it_goes() -> None:
    assert table_share(TABLE, np.vstack([TABLE, TABLE])) == 1.0
    assert table_share(TABLE, TABLE[:100]) == 0.5
    assert table_share(TABLE, TABLE[:, :8]) == 0.0


def changed(folder: Path, share: float) -> Path:
    """The same checkpoint, some rows of its table drawn again."""
    (path,) = folder.glob("*.safetensors")
    tensors = load_file(path)
    rows = tensors["model.embed_tokens.weight"]
    rows[: int(share * len(rows))] += 1
    save_file(tensors, path, {"format": "pt"})
    return folder


def test_a_public_table_is_named(make_model: Any, tmp_path: Path) -> None:
    source = make_model("llama")
    protect(str(source), tmp_path / "out")
    hosted = ModelView.open(tmp_path / "out" / "model")
    near = changed(make_model("llama"), 0.1)
    far = changed(make_model("llama"), 0.9)
    found = exposure_of(str(source), hosted, [far, near])
    assert found.public_table == near.name
    assert found.table_share == pytest.approx(0.9, abs=0.02)
    assert found.public_base in (near.name, far.name)  # only their tables are not the same
    assert found.base_likeness > 0.9
    assert exposure_of(str(source), hosted, [far]).public_table is None
    unlike = make_model("llama", hidden_size=32, head_dim=8)
    alone = exposure_of(str(source), hosted, [])
    assert exposure_of(str(source), hosted, [unlike]) == alone
    assert (alone.public_table, alone.public_base, alone.base_likeness) == (None, None, 0.0)
    assert nearest_table(TABLE, {"near": ModelView.open(near)}) == (None, 0.0)


def named_by(folder: Path, name: Any) -> str | None:
    document = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**document, "_name_or_path": name}))
    return declared_base(str(folder), Checkpoint.open(folder))


def test_the_configuration_may_name_the_base(make_model: Any) -> None:
    folder = make_model("llama")
    assert declared_base(str(folder), Checkpoint.open(folder)) is None
    assert named_by(folder, "someone/some-model_2.5") == "someone/some-model_2.5"
    for nothing in ("", ".", "./here", "/home/me/model", None, 7):
        assert named_by(folder, nothing) is None


@pytest.mark.parametrize(
    ("front", "named"),
    [
        ("base_model: someone/some-model", "someone/some-model"),
        ("base_model:\n- first/one\n- second/one", "first/one"),
        ("license: mit", None),
        ("base_model: [unclosed", None),
        ("base_model: {a: b}", None),
    ],
)
def test_the_model_card_may_name_the_base(
    front: str, named: str | None, make_model: Any
) -> None:
    folder = make_model("llama")
    (folder / "README.md").write_text(f"---\n{front}\n---\n# A model\n")
    assert declared_base(str(folder), Checkpoint.open(folder)) == named


def test_what_is_no_folder_is_public_by_its_name(make_model: Any) -> None:
    assert (
        declared_base("someone/model", Checkpoint.open(make_model("llama"))) == "someone/model"
    )
