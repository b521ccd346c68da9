"""The attacks: each recovers what is planted, and nothing from rows it cannot read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from triparty.common.errors import SettingsError, StateError
from triparty.common.keying import Bundle
from triparty.common.wire import Frame, encode_frames
from triparty.developer.audit import (
    Knowledge,
    Level,
    audit,
    set_scene,
)
from triparty.developer.audit.attacks import SortedRows
from triparty.developer.audit.claims import UNKNOWN, Truth
from triparty.developer.audit.knowledge import Table
from triparty.developer.protect import protect

SORTED = (SortedRows(),)
RNG = np.random.default_rng(0)
VOCABULARY, WIDTH, POSITIONS = 300, 32, 40


def planted(*, positions: bool, noise: float = 0.0) -> tuple[Knowledge, Truth]:
    """Two interleaved sessions under a signed permutation, with the truth beside them."""
    rows = RNG.normal(size=(VOCABULARY, WIDTH)).astype(np.float32)
    placed = RNG.normal(size=(POSITIONS, WIDTH)).astype(np.float32) if positions else None
    index, sign = RNG.permutation(WIDTH), RNG.choice([-1, 1], WIDTH).astype(np.float32)
    requests, truth = [], []
    for ids, start in (([1, 2, 3], 0), ([9, 9], 0), ([4], 3), ([5, 6], 2), ([7], 4)):
        plain = rows[ids]
        if placed is not None:
            plain = plain + placed[start : start + len(ids)]
        keyed = plain[:, index] * sign
        requests.append(keyed + noise * RNG.normal(size=keyed.shape).astype(np.float32))
        truth.append(np.array(ids))
    key = np.eye(WIDTH)[:, index] * sign
    order = np.arange(VOCABULARY)
    return (
        Knowledge(tuple(requests), table=Table(rows, placed)),
        Truth(tuple(truth), rows.astype(np.float64), key, order, {}),
    )


@pytest.mark.parametrize("positions", [False, True])
def test_sorted_rows_recovers_every_planted_token(positions: bool) -> None:
    knowledge, truth = planted(positions=positions)
    assert SortedRows().mount(knowledge).score(truth) == 1.0


@pytest.mark.parametrize("positions", [False, True])
def test_sorted_rows_recovers_nothing_from_rotated_rows(positions: bool) -> None:
    knowledge, _ = planted(positions=positions)
    control = SortedRows().control(knowledge)
    assert SortedRows().mount(control).share == 0.0


def test_two_tokens_with_one_row_are_not_told_apart() -> None:
    knowledge, truth = planted(positions=False)
    knowledge.table.rows[200] = knowledge.table.rows[9]
    found = SortedRows().mount(knowledge)
    assert found.token_ids[1].tolist() == [UNKNOWN, UNKNOWN]
    assert found.score(truth) == 7 / 9


@pytest.mark.parametrize("family", ["llama", "gpt2"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_audit_of_a_protected_model(
    family: str, dtype: str, make_model: Any, tmp_path: Path
) -> None:
    source, out = make_model(family, dtype=dtype), tmp_path / "out"
    protect(str(source), out)
    (found,) = audit(set_scene(str(source), out), attacks=SORTED).findings
    assert (found.name, found.level, found.target) == ("sorted-rows", "K2", "tokens")
    assert found.recovered == 1.0
    assert found.control == 0.0
    assert found.checked
    assert found.seconds >= 0


def trace_of(out: Path, path: Path) -> Path:
    bundle = Bundle.open(out / "device")
    frames = [bundle.rows(np.array([5, 6, 7]), start=0), bundle.rows(np.array([8]), start=3)]
    path.write_bytes(encode_frames(*frames))
    return path


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_a_trace_is_attacked_and_checked(family: str, make_model: Any, tmp_path: Path) -> None:
    source = make_model(family)
    for name in ("out", "other"):
        protect(str(source), tmp_path / name)
    trace = trace_of(tmp_path / "out", tmp_path / "trace")
    scene = set_scene(str(source), tmp_path / "out", trace=trace)
    (found,) = audit(scene, attacks=SORTED).findings
    assert (found.recovered, found.matched, found.rows, found.checked) == (1.0, 1.0, 4, True)
    scene = set_scene(str(source), tmp_path / "other", trace=trace)
    (found,) = audit(scene, attacks=SORTED).findings
    assert (found.recovered, found.checked) == (1.0, False)


def test_traces_of_something_else_are_refused(make_model: Any, tmp_path: Path) -> None:
    source, out, trace = make_model("llama"), tmp_path / "out", tmp_path / "trace"
    protect(str(source), out)
    for data, named in (
        (b"", "0 bytes"),
        (b"nonsense", "no trace of frames"),
        (encode_frames(Frame.of(np.zeros((1, 7), np.float32))), "no rows of this model"),
        (encode_frames(Frame.of(np.zeros(24, np.float32))), "no rows of this model"),
    ):
        trace.write_bytes(data)
        with pytest.raises(SettingsError, match=named):
            set_scene(str(source), out, trace=trace)
    with pytest.raises(SettingsError, match="cannot read"):
        set_scene(str(source), out, trace=tmp_path / "absent")
    with pytest.raises(StateError, match="no protected model"):
        set_scene(str(source), tmp_path)


def trained_on(folder: Path) -> Path:
    """The same checkpoint with other weights."""
    for path in folder.glob("*.safetensors"):
        tensors = load_file(path)
        save_file(
            {name: values + 0.5 for name, values in tensors.items()}, path, {"format": "pt"}
        )
    return folder


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_a_model_is_not_attacked_with_the_table_of_another(
    family: str, make_model: Any, tmp_path: Path
) -> None:
    protect(str(make_model(family)), tmp_path / "out")
    other = "gpt2" if family == "llama" else "llama"
    with pytest.raises(StateError, match="was made from a"):
        set_scene(str(make_model(other)), tmp_path / "out")
    with pytest.raises(SettingsError, match="was not made from"):
        set_scene(str(trained_on(make_model(family))), tmp_path / "out")


def test_levels_are_parsed() -> None:
    assert Level.parse("K2") == {Level.K2}
    assert Level.parse("k0, K3") == {Level.K0, Level.K3}
    assert Level.parse("K1..K3") == Level.parse("K1-K3") == {Level.K1, Level.K2, Level.K3}
    assert Level.parse("K0..K4") == frozenset(Level)
    for text in ("", "K5", "K2-", "K2-K9", "K3-K1", "all"):
        with pytest.raises(SettingsError, match="K0 to K4"):
            Level.parse(text)
