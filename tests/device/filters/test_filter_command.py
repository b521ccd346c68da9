"""`triparty device filter`: fit and evaluate on files, with results or with a model."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from made_inputs import clouds, write_filter
from typer.testing import CliRunner

from triparty.common.errors import DatasetError, SettingsError
from triparty.common.tables import read_table
from triparty.device.cli_filter import app
from triparty.device.filters.filter import Filter
from triparty.device.filters.filterability import filterability
from triparty.device.filters.measures import class_not_in, confidence_below
from triparty.device.filters.tables import chosen

pytest.importorskip("torch")
pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from triparty.common.nets.samples import gather
from triparty.common.nets.training import Course

Call = Callable[..., str]


@pytest.fixture
def call() -> Call:
    def run(*arguments: object) -> str:
        answer = CliRunner().invoke(app, [str(one) for one in arguments])
        if answer.exception is not None:
            raise answer.exception
        return answer.stdout

    return run


@pytest.fixture
def data(tmp_path: Path) -> Path:
    points, classes = clouds(240, seed=3)
    np.savez(tmp_path / "data.npz", x=points, results=classes, camera=np.arange(240))
    return tmp_path / "data.npz"


def test_a_filter_is_fitted_and_judged(call: Call, data: Path, tmp_path: Path) -> None:
    output = tmp_path / "made"
    said = json.loads(
        call("fit", data, "-o", output, "--measure", "class-not-in:0", "--epochs", 8, "--json")
    )
    assert said["trial"]["theory"] == "filterable"
    assert said["trial"]["is_filterable"] is True
    assert said["inputs"][0]["name"] == "x"
    assert said["calibration"]["target_accuracy"] == 0.9
    assert (output / "filter.onnx").is_file()
    found = json.loads(call("evaluate", output, data, "--model-ms", 50, "--json"))
    assert found["worth_having"] is True
    assert found["model_cost_ms"] == 50
    assert 0 < found["cost_ms"] < 50
    assert found["filter_rate"] <= 1
    assert found["accuracy"] >= 0.9
    assert found["best_possible"] == pytest.approx(
        0.1 + 1 - np.mean(read_table(data)["results"] == 0)
    )
    told = call("evaluate", output, data)
    assert "for the traffic alone" in told
    assert "by chance" in told


def test_rows_that_depend_on_each_other_are_blocks(tmp_path: Path) -> None:
    points, classes = clouds(400, seed=3)
    order = np.argsort(classes, kind="stable")
    walls = np.arange(400) * 0.5
    np.savez(tmp_path / "clip.npz", x=points[order], results=classes[order], wall=walls)
    arguments = ["fit", str(tmp_path / "clip.npz"), "-o", str(tmp_path / "f"), "--epochs", "2",
                 "--measure", "class-not-in:0", "--no-trial"]  # fmt: skip
    alone = CliRunner().invoke(app, arguments)
    assert "results of rows stay alike for about" in alone.stderr
    assert "samples kept back" in alone.stdout
    known = CliRunner().invoke(app, [*arguments, "--blocks", "wall:10"])
    assert "stay alike" not in known.stderr
    assert "100 samples in 5 blocks show no threshold" in known.stdout
    assert "at least 32 blocks" in known.stdout
    assert Filter.load(tmp_path / "f").artifact.tasks[0].calibration.blocks == 5
    for wrong, message in (("when", "no column 'when'"), ("wall:long", "COLUMN:LENGTH")):
        refused = CliRunner().invoke(app, [*arguments, "--blocks", wrong])
        assert isinstance(refused.exception, SettingsError)
        assert message in refused.exception.message


def test_a_reuse_filter_is_fitted(call: Call, data: Path, tmp_path: Path) -> None:
    output = tmp_path / "made"
    told = call("fit", data, "-o", output, "--kind", "reuse", "--epochs", 2, "--inputs", "x")
    assert "wrote" in told
    found = json.loads(call("evaluate", output, data, "--model-ms", 1e-6, "--json"))
    assert found["worth_having"] is False


def test_a_model_makes_the_results_and_is_timed(
    call: Call, test_data: Path, tmp_path: Path
) -> None:
    """A real keyword spotter; the filter itself learns nothing from so few sounds."""
    rng = np.random.default_rng(0)
    sounds = (rng.normal(size=(24, 16000)) * rng.random((24, 1))).astype(np.float32)
    np.savez(tmp_path / "sounds.npz", input=sounds)
    source = test_data / "models" / "kwt1" / "kwt1.onnx"
    from triparty.device.filters.label_model import LabelModel

    logits = LabelModel(source)(sounds[0])
    assert logits.shape == (12,)
    said = [int(LabelModel(source)(one).argmax()) for one in sounds[:4]]
    np.savez(tmp_path / "points.npz", input=np.zeros((4, 6), np.float32), y=said)
    folder = write_filter(tmp_path / "filter")
    with pytest.raises(SettingsError, match="does not take such inputs"):
        call("evaluate", folder, tmp_path / "points.npz", "--model", source)


def test_tables_of_every_kind_hold_the_same(data: Path, tmp_path: Path) -> None:
    columns = read_table(data)
    folder = tmp_path / "folder"
    folder.mkdir()
    for name, column in columns.items():
        np.save(folder / f"{name}.npy", column)
    again = read_table(folder)
    assert all(np.array_equal(again[name], column) for name, column in columns.items())
    inputs, said = chosen(columns, [], [], has_model=False)
    assert list(inputs) == ["x"]
    assert said is columns["results"]


def test_parquet_holds_lists_and_texts(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    made = {"x": [[1.0, 2.0], [3.0, 4.0]], "words": ["a", "b"], "y": [0, 1]}
    parquet.write_table(pyarrow.table(made), tmp_path / "data.parquet")
    found = read_table(tmp_path / "data.parquet")
    assert found["x"].tolist() == made["x"]
    assert found["words"] == ["a", "b"]
    parquet.write_table(pyarrow.table({"x": [[1.0], None]}), tmp_path / "data.parquet")
    with pytest.raises(DatasetError, match="row 1 of 'x' is empty"):
        read_table(tmp_path / "data.parquet")
    (tmp_path / "data.parquet").write_bytes(b"no table")
    with pytest.raises(DatasetError):
        read_table(tmp_path / "data.parquet")


def test_tables_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "pickled.npz", x=np.array([{}, {}], dtype=object))
    np.savez(tmp_path / "uneven.npz", x=np.zeros((2, 2)), y=np.zeros(3))
    np.savez(tmp_path / "single.npz", x=np.float32(1))
    (tmp_path / "broken.npz").write_bytes(b"PK\x03\x04 no archive")
    for name in ("pickled", "uneven", "single", "broken", "absent"):
        with pytest.raises(DatasetError):
            read_table(tmp_path / f"{name}.npz")
    with pytest.raises(SettingsError, match=r"expected \.npz"):
        read_table(tmp_path / "data.csv")


def test_a_filter_of_several_tasks_is_judged_by_each(
    call: Call, data: Path, tmp_path: Path
) -> None:
    table = np.load(data)
    said = {"first": table["results"], "second": (table["results"] + 1) % 3}
    Filter.fit(table["x"], said, class_not_in(0), course=Course(epochs=2)).save(
        tmp_path / "two"
    )
    np.savez(tmp_path / "other.npz", points=table["x"], a=said["first"], b=said["second"])
    arguments = (
        "evaluate",
        tmp_path / "two",
        tmp_path / "other.npz",
        "--inputs",
        "input=points",
    )
    by_task = ("--results", "first=a", "--results", "second=b")
    found = json.loads(call(*arguments, *by_task, "--json"))
    assert [one["name"] for one in found["tasks"]] == ["first", "second"]
    swapped = ("--results", "first=b", "--results", "second=a")
    other = json.loads(call(*arguments, *swapped, "--json"))
    assert other["tasks"][0]["best"] != found["tasks"][0]["best"]
    with pytest.raises(SettingsError, match="one task"):
        call(*arguments, *by_task, "--baselines")
    with pytest.raises(DatasetError, match="first, second"):
        call(*arguments, "--results", "a")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("fit", "DATA", "-o", "made", "--measure", "colour"), "measure 'colour'"),
        (("fit", "DATA", "-o", "made", "--measure", "regression-above:x"), "a number"),
        (("fit", "DATA", "-o", "made", "--kind", "drop"), "kind 'drop'"),
        (("fit", "DATA", "-o", "made", "--results", "colour"), "no column 'colour'"),
        (("fit", "DATA", "-o", "made", "--results", "a=results"), "filters of one task"),
        (("fit", "DATA", "-o", "made", "--inputs", "colour"), "no column 'colour'"),
        (("fit", "DATA", "-o", "made", "--modality", "series"), "NAME=MODALITY"),
        (("fit", "DATA", "-o", "made", "--model", "absent.onnx"), "no such model"),
        (("fit", "DATA", "-o", "made", "--target-accuracy", "2"), "target accuracy"),
        (("fit", "DATA", "-o", "made", "--loss", "hinge"), "loss 'hinge'"),
    ],
)
def test_what_cannot_be_done_says_so(
    call: Call, data: Path, arguments: tuple[str, ...], message: str
) -> None:
    with pytest.raises(SettingsError, match=message):
        call(*(str(data) if one == "DATA" else one for one in arguments))


def test_a_trial_tells_a_task_from_noise() -> None:
    points, classes = clouds(240)
    found = filterability(gather(points), classes == 0, class_not_in(0))
    assert found.is_filterable
    assert found.low <= found.filter_rate <= found.high
    assert found.filter_rate > 0.9 * found.best_possible
    noise = np.random.default_rng(0).permutation(classes == 0)
    control = filterability(gather(points), noise, confidence_below(0.5), seed=1)
    assert not control.is_filterable
    assert control.theory == "not filterable"
    with pytest.raises(DatasetError, match="of each kind"):
        filterability(gather(points), np.arange(240) < 3, class_not_in(0))
