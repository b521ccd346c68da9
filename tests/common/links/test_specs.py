"""Output specs and recorded outputs: what is said of them holds, and bad rows are named."""

from __future__ import annotations

import json
import sys
from dataclasses import FrozenInstanceError
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from linked_outputs import SPECS, linked

from triparty.common.errors import DatasetError, ManifestError, SettingsError
from triparty.common.links.recorded import (
    PARQUET_FILE,
    SPECS_FILE,
    TABLE_FILE,
    Recorded,
    check_recorded,
)
from triparty.common.links.specs import (
    PAD,
    Seq,
    Vec,
    check_outputs,
    read_spec,
    share_labels,
    spec_members,
)


@pytest.mark.parametrize("spec", [*SPECS.values(), Seq(2, 3, ("yes", "no"))])
def test_a_spec_is_read_as_it_was_written(spec: Any) -> None:
    assert read_spec(json.loads(json.dumps(spec_members(spec)))) == spec


def test_what_follows_from_a_task() -> None:
    assert (SPECS["class"].activation, SPECS["class"].metric) == ("softmax", "accuracy")
    assert (SPECS["tags"].activation, SPECS["tags"].metric) == ("sigmoid", "mAP")
    assert (SPECS["size"].activation, SPECS["size"].metric) == ("linear", "MAE")
    assert SPECS["count"].metric == "accuracy"
    assert SPECS["box"].metric == "IoU"
    assert (SPECS["words"].metric, SPECS["words"].logits) == ("WER", 6)
    with pytest.raises(FrozenInstanceError):
        SPECS["class"].labels = ()  # type: ignore[misc]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Vec("guess", 3), "task 'guess'"),
        (lambda: Vec("single-label", 1), "expected 2 to"),
        (lambda: Vec("localisation", 4), "a box has 5 values"),
        (lambda: Vec("multi-label", 2, ("a", "a")), "1 different labels for 2"),
        (lambda: Vec("multi-label", 2, tolerance=0.5), "of regression alone"),
        (lambda: Seq(0, 3), "sequences of 0 tokens"),
        (lambda: Seq(2, 3, ("a",)), "1 different labels for 2"),
        (lambda: read_spec({"task": "sequence", "vocabulary": 3}), "'length' is missing"),
        (lambda: read_spec({"task": "regression", "width": "1"}), "'width'"),
        (lambda: read_spec({"task": "regression", "width": 1, "loss": "L2"}), "'loss'"),
        (lambda: read_spec([1]), "expected an object"),
    ],
)
def test_what_no_model_gives_is_refused(make: Any, message: str) -> None:
    with pytest.raises((SettingsError, ManifestError), match=message):
        make()


def test_labels_are_shared_in_their_order_alone() -> None:
    spec = Vec("single-label", 2, ("a", "b"))
    assert share_labels(spec, Vec("single-label", 2, ("a", "b")))
    assert not share_labels(spec, Vec("single-label", 2, ("b", "a")))
    assert not share_labels(Vec("single-label", 2), Vec("single-label", 2))
    assert not share_labels(spec, Vec("multi-label", 2, ("a", "b")))


def _changed(name: str, value: Any, at: tuple[int, ...]) -> np.ndarray:
    outputs = linked(20).outputs[name].copy()
    outputs[at] = value
    return outputs


@pytest.mark.parametrize(
    ("name", "value", "at", "message"),
    [
        ("size", np.nan, (7, 1), "row 7 of 'size' holds a number that is not finite"),
        ("class", np.inf, (3, 0), "row 3 of 'class' holds a number that is not finite"),
        ("class", -0.1, (4, 2), "row 4 of 'class' holds a share outside"),
        ("class", 0.3, (5, slice(None)), "row 5 of 'class' holds shares that do not sum"),
        ("tags", 1.5, (6, 0), "row 6 of 'tags' holds a score outside"),
        ("box", 0.5, (8, 0), "row 8 of 'box' holds neither 0 nor 1"),
        ("box", [1, 0.5, 0.1, 0.2, 0.4], (9,), "row 9 of 'box' holds a box whose right"),
        ("words", 5, (2, 0), "row 2 of 'words' holds a token that is none of 0 to 4"),
        ("words", [0, PAD, 1, PAD], (1,), "row 1 of 'words' holds a token behind the end"),
    ],
)
def test_a_bad_row_is_named(name: str, value: Any, at: Any, message: str) -> None:
    check_outputs(name, SPECS[name], linked(20).outputs[name])
    with pytest.raises(DatasetError, match=message):
        check_outputs(name, SPECS[name], _changed(name, value, at))


def test_other_shapes_and_types_are_refused() -> None:
    with pytest.raises(DatasetError, match=r"rows of shape \(3,\): expected \(4,\)"):
        check_outputs("class", SPECS["class"], np.ones((5, 3)))
    with pytest.raises(DatasetError, match="tokens are integers"):
        check_outputs("words", SPECS["words"], np.zeros((5, 4)))
    with pytest.raises(DatasetError, match="expected numbers"):
        check_outputs("tags", SPECS["tags"], np.array([["a", "b", "c"]]))
    assert check_outputs("count", SPECS["count"], np.arange(3)).shape == (3, 1)


def test_outputs_must_be_aligned() -> None:
    whole = linked(12)
    short = {**whole.outputs, "count": whole.outputs["count"][:-1]}
    with pytest.raises(DatasetError, match="count: 11"):
        check_recorded(SPECS, short)
    lacking = {name: one for name, one in whole.outputs.items() if name != "box"}
    with pytest.raises(DatasetError, match="no outputs for 'box'"):
        check_recorded(SPECS, lacking)
    with pytest.raises(DatasetError, match="no output spec for 'extra'"):
        check_recorded(SPECS, {**whole.outputs, "extra": np.ones((12, 1))})
    with pytest.raises(DatasetError, match="one row an input"):
        check_recorded(SPECS, {name: one[:0] for name, one in whole.outputs.items()})


def test_a_folder_is_read_as_it_was_written(tmp_path: Path) -> None:
    whole = linked(9)
    whole.save(tmp_path / "seen")
    again = Recorded.open(tmp_path / "seen")
    assert again.specs == whole.specs
    for name, outputs in whole.outputs.items():
        np.testing.assert_array_equal(again.outputs[name], outputs)
        assert again.outputs[name].dtype == outputs.dtype
    (tmp_path / "seen" / TABLE_FILE).unlink()
    with pytest.raises(SettingsError, match="neither"):
        Recorded.open(tmp_path / "seen")


def test_what_a_person_wrote_is_read(tmp_path: Path) -> None:
    np.savez(tmp_path / TABLE_FILE, cars=np.arange(5), day=np.eye(2)[[0, 1, 1, 0, 0]])
    (tmp_path / SPECS_FILE).write_text(
        '{"cars": {"task": "regression", "width": 1, "tolerance": "0.5"},\n'
        ' "day": {"task": "single-label", "width": 2, "labels": ["day", "night"]}}'
    )
    found = Recorded.open(tmp_path)
    assert found.specs["day"].labels == ("day", "night")
    assert len(found) == 5
    with pytest.raises(SettingsError, match="no outputs of 'trucks'"):
        found.models(["trucks"])


def test_pickled_rows_are_refused(tmp_path: Path) -> None:
    linked(9).save(tmp_path / "seen")
    rows = np.array([{"a": 1}] * 9, dtype=object)
    np.savez(tmp_path / "seen" / TABLE_FILE, **dict.fromkeys(SPECS, rows))
    with pytest.raises(DatasetError, match="pickle"):
        Recorded.open(tmp_path / "seen")


def test_parquet_is_read_as_the_same_outputs(tmp_path: Path) -> None:
    """Rows of every kind of output are lists of one length; a bad one is named by its row."""
    pyarrow = pytest.importorskip("pyarrow", reason="Parquet needs pyarrow")
    from pyarrow import parquet

    recorded = linked(40)
    columns = {name: column.tolist() for name, column in recorded.outputs.items()}
    recorded.save(tmp_path)
    (tmp_path / TABLE_FILE).unlink()
    parquet.write_table(pyarrow.table(columns), tmp_path / PARQUET_FILE)
    found = Recorded.open(tmp_path)
    assert found.specs == recorded.specs
    for name, column in recorded.outputs.items():
        assert found.outputs[name].dtype == column.dtype
        np.testing.assert_allclose(found.outputs[name], column, atol=1e-6)
    name = min(columns)
    columns[name][7] = columns[name][7][:-1]
    parquet.write_table(pyarrow.table(columns), tmp_path / PARQUET_FILE)
    with pytest.raises(DatasetError, match=f"'{name}' has rows of different lengths"):
        Recorded.open(tmp_path)


def test_parquet_without_pyarrow_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    linked(9).save(tmp_path)
    (tmp_path / TABLE_FILE).unlink()
    (tmp_path / PARQUET_FILE).write_bytes(b"PAR1")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(SettingsError, match="pip install pyarrow"):
        Recorded.open(tmp_path)
