"""`Filter`: fitted, calibrated, judged, kept, and used without torch."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from made_inputs import SIZES, clouds, copied, fitted, model, write_filter

from triparty.common.errors import (
    DatasetError,
    FileTypeError,
    ManifestError,
    SettingsError,
    TripartyError,
)
from triparty.device.filters import Filter, Recipe, class_not_in, measure
from triparty.device.filters.artifact import FilterArtifact

pytest.importorskip("torch")
pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

KINDS = pytest.mark.parametrize("kind", ["skip", "reuse"])


@KINDS
def test_a_fitted_filter_does_nearly_what_is_possible(kind: str) -> None:
    points, classes = clouds(400, seed=1)
    found = fitted(kind).evaluate(points, classes.tolist(), model=model()).tasks[0]
    assert found.calibrated.accuracy >= 0.9
    assert found.quality_best > (0.98 if kind == "skip" else 0.8)
    assert found.best.filter_rate >= found.calibrated.filter_rate > found.random_level


def test_costs_of_filter_and_model_decide_whether_it_is_worth_having() -> None:
    points, classes = clouds(50, seed=1)
    cheap = fitted("skip").evaluate(points, classes, model=lambda _: None).worth
    assert cheap.worth_having is False

    def dear(_: Any) -> None:
        sum(range(200_000))

    found = fitted("skip").evaluate(points, classes, model=dear)
    assert found.worth.worth_having is True
    assert 0 < found.worth.break_even < 1
    assert fitted("skip").evaluate(points, classes).worth.worth_having is None
    assert found.with_model_cost(1e-6).worth.worth_having is False


@KINDS
def test_saved_and_loaded_it_is_the_same(kind: str, tmp_path: Path) -> None:
    points, _ = clouds(20, seed=2)
    write_filter(tmp_path / "filter", kind)
    loaded = Filter.load(tmp_path / "filter")
    assert np.array_equal(loaded.outputs(points), fitted(kind).outputs(points))
    assert loaded.artifact.tasks[0].calibration == fitted(kind).artifact.tasks[0].calibration
    assert loaded.artifact.design == fitted(kind).artifact.design
    loaded.save(tmp_path / "again")
    for name in ("filter.json", "filter.onnx"):
        path = tmp_path / "again" / name
        assert path.read_bytes() == (tmp_path / "filter" / name).read_bytes()
        assert path.stat().st_mode & 0o777 == 0o600


def test_a_device_without_torch_filters(tmp_path: Path) -> None:
    folder = write_filter(tmp_path / "filter")
    code = (
        "import sys; sys.modules['torch'] = sys.modules['onnx'] = None\n"
        "import numpy as np\n"
        "from triparty.device.filters import Filter\n"
        f"made = Filter.load({str(folder)!r})\n"
        "print(list(made.apply(np.zeros((2, 6), np.float32), lambda one: 'run')))\n"
        "try:\n"
        "    made.update([[0.0] * 6] * 99, [0, 1, 2] * 33,"
        " validation=([[0.0] * 6] * 99, [0, 1, 2] * 33))\n"
        "except Exception as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    lines = done.stdout.splitlines()
    assert "OtherClass" in lines[0] or "run" in lines[0]
    assert "pip install 'triparty[train]'" in lines[1]


def test_what_is_needed_is_what_scores_above_the_threshold() -> None:
    points, _ = clouds(60, seed=3)
    made = fitted("skip")
    threshold = made.artifact.tasks[0].calibration.threshold
    expected = made.outputs(points)[:, 0] > threshold
    assert made.needed(points)[:, 0].tolist() == expected.tolist()
    assert 0 < expected.sum() < 60
    with pytest.raises(SettingsError, match="cache"):
        fitted("reuse").needed(points)


def test_a_measure_of_ones_own_is_named_and_given_again(tmp_path: Path) -> None:
    @measure
    def is_zero(result: int) -> bool:
        return result == 0

    @measure
    def other(result: int) -> bool:
        return result == 1

    made = fitted("skip").artifact
    own = replace(made, tasks=(replace(made.tasks[0], measure=is_zero),))
    Filter(own).save(tmp_path / "own")
    points, classes = clouds(60, seed=3)
    with pytest.raises(SettingsError, match="give it again"):
        Filter.load(tmp_path / "own").evaluate(points, classes)
    given_again = Filter.load(tmp_path / "own", measures={"task": is_zero})
    assert given_again.evaluate(points, classes).tasks[0].calibrated.accuracy > 0.9
    for wrong in ({"task": other}, {"nobody": is_zero}):
        with pytest.raises(SettingsError):
            Filter.load(tmp_path / "own", measures=wrong)


def test_two_tasks_and_two_modalities_share_a_network() -> None:
    from triparty.common.nets.training import Course

    points, classes = clouds(300)
    words = [f"class {one}" if row % 5 else None for row, one in enumerate(classes)]
    made = Filter.fit(
        {"point": points, "words": words},
        {"zero": classes, "one": classes},
        {"zero": class_not_in(0), "one": class_not_in(1)},
        recipe=Recipe(sizes=SIZES),
        course=Course(epochs=15, rate=5e-3),
    )
    assert [one.modality for one in made.artifact.design.inputs] == ["vector", "text"]
    needed = made.needed({"point": points, "words": words})
    assert needed.shape == (300, 2)
    results = made.in_front_of({"zero": lambda _: "z", "one": lambda _: "o"})(
        {"point": points[0], "words": None}
    )
    assert results.keys() == {"zero", "one"}


def test_an_update_learns_what_changed_and_a_worse_one_is_kept_out() -> None:
    from triparty.common.nets.training import Course

    made = copied("skip")
    old = made.core
    points, classes = clouds(300, seed=4)
    moved = points[:, ::-1].copy()  # the world changed: features swap places
    validation = (clouds(200, seed=5)[0][:, ::-1].copy(), clouds(200, seed=5)[1])
    course = Course(epochs=15, rate=5e-3)
    done = made.update(moved, classes, validation=validation, course=course)
    assert done.is_taken
    assert done.after > done.before
    assert made.core is not old
    assert made.evaluate(*validation).tasks[0].calibrated.accuracy >= 0.88
    taken = made.core
    lies = np.random.default_rng(0).permutation(classes)
    worse = made.update(moved, lies, validation=validation, course=Course(epochs=25, rate=2e-2))
    assert not worse.is_taken
    assert worse.after < worse.before
    assert made.core is taken
    with pytest.raises(DatasetError, match="at least 60"):
        made.update(moved, classes, validation=(moved[:59], classes[:59]))


def test_a_stricter_target_filters_less() -> None:
    made = copied("skip")
    points, classes = clouds(400, seed=6, spread=1.5)
    rates = []
    for target in (0.8, 0.9, 0.97):
        made.calibrate(points, classes, target_accuracy=target)
        found = made.artifact.tasks[0].calibration
        assert found.target_accuracy == target
        rates.append(found.filter_rate)
    assert rates[0] > rates[1] > rates[2]


def spoilt(points: Any) -> Any:
    """The same with a number that is none."""
    made = points.copy()
    made[7, 2] = np.nan
    return made


@pytest.mark.parametrize("kind", ["skip", "reuse"])
def test_one_block_shows_nothing(kind: str, tmp_path: Path) -> None:
    points, classes = clouds(400)
    fitted(kind).save(tmp_path / "f")
    made = Filter.load(tmp_path / "f")
    made.calibrate(points, classes, blocks=np.zeros(400))
    found = made.artifact.tasks[0].calibration
    assert (found.threshold, found.blocks) == (None, 1)
    made.save(tmp_path / "f")
    assert Filter.load(tmp_path / "f").artifact.tasks[0].calibration == found
    made.calibrate(points[:1], classes[:1])
    assert made.artifact.tasks[0].calibration.threshold is None


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda p, c: Filter.fit(p, c[:-1].tolist(), class_not_in(0)), "have 399 labels"),
        (lambda p, c: Filter.fit(p, c, class_not_in(9)), "label 0 in all"),
        (lambda p, c: Filter.fit(p, ["a"] * 400), "row 0: no result of this measure"),
        (lambda p, c: Filter.fit(spoilt(p), c, class_not_in(0)), "row 7 .* not finite"),
        (lambda p, c: Filter.fit(p, c, class_not_in(0), blocks=c[:-1]), "have 399 blocks"),
        (lambda p, c: fitted("skip").evaluate(spoilt(p), c), "row 7 .* not finite"),
        (lambda p, c: fitted("skip").calibrate(p, c, blocks=c[:-1]), "have 399 blocks"),
        (lambda p, c: fitted("skip").evaluate(p[:, :3], c), "shape"),
        (lambda p, c: fitted("skip").evaluate(p, c[:-1]), "400 inputs have 399 results"),
        (lambda p, c: fitted("skip").evaluate(p, {"nobody": c}), "results of task"),
    ],
)
def test_bad_data_is_refused(call: Any, message: str) -> None:
    points, classes = clouds(400)
    with pytest.raises(DatasetError, match=message):
        call(points, classes)


def test_recipes_that_cannot_be_are_refused() -> None:
    points, classes = clouds(40)
    for recipe in (
        {"target_accuracy": 1.0},
        {"calibration_share": 0.0},
        {"sizes": {"depth": 3}},
    ):
        with pytest.raises(SettingsError):
            Recipe(**recipe)  # type: ignore[arg-type]
    with pytest.raises(SettingsError, match="no measure"):
        Filter.fit(points, classes, class_not_in(0), recipe=Recipe("reuse"))
    with pytest.raises(SettingsError, match="modality of 'other'"):
        Filter.fit(points, classes, class_not_in(0), modality={"other": "vector"})


def changed(folder: Path, **members: Any) -> Path:
    """The filter with members of its document replaced, still canonical."""
    path = folder / "filter.json"
    document = json.loads(path.read_bytes())
    for name, value in members.items():
        part, _, member = name.partition("__")
        if member:
            document[part][member] = value
        else:
            document[part] = value
    path.write_bytes(json.dumps(document, sort_keys=True, separators=(",", ":")).encode())
    return folder


@pytest.mark.parametrize(
    "members",
    [
        {"design__kind": "drop"},
        {"design__units": 0},
        {"design__dropout": "half"},
        {"design__inputs": []},
        {"tasks": []},
        {"tasks": ["task"]},
        {"reuse__size": 0},
        {"reuse__least_theta": "2.0"},
        {"training__loss": "nan"},
        {"type": "triparty.gate"},
    ],
)
def test_documents_that_cannot_be_are_refused(members: dict[str, Any], tmp_path: Path) -> None:
    write_filter(tmp_path / "filter")
    with pytest.raises(ManifestError):
        FilterArtifact.open(changed(tmp_path / "filter", **members))


def test_a_network_of_another_design_is_refused(tmp_path: Path) -> None:
    folder = write_filter(tmp_path / "filter")
    (folder / "filter.onnx").write_bytes(fitted("reuse").artifact.network)
    with pytest.raises(FileTypeError, match="answers"):
        Filter.load(folder)
    (folder / "filter.onnx").write_bytes(b"no model")
    with pytest.raises(FileTypeError, match="no ONNX model"):
        Filter.load(folder)
    (folder / "filter.onnx").unlink()
    with pytest.raises(FileTypeError, match="cannot read"):
        Filter.load(folder)
    with pytest.raises(SettingsError, match="is no filter"):
        fitted("skip").save(tmp_path)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.integers(0, 1 << 20), st.binary(max_size=4), st.integers(0, 8))
def test_damage_is_an_error_of_ours_or_another_whole_filter(
    tmp_path: Path, place: int, inserted: bytes, removed: int
) -> None:
    path = write_filter(tmp_path / "filter") / "filter.json"
    whole = path.read_bytes()
    place %= len(whole)
    path.write_bytes(whole[:place] + inserted + whole[place + removed :])
    try:
        opened = Filter.load(tmp_path / "filter")
    except TripartyError:
        return
    assert np.isfinite(opened.outputs(np.ones((2, 6), np.float32))).all()
