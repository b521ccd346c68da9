"""What a filter's word means to tasks, in which size it sees, and where samples go."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from triparty.common.errors import DatasetError, SettingsError
from triparty.common.tables import read_table
from triparty.device.filters.measures import class_not_in, named
from triparty.device.filters.results import (
    LowConfidence,
    NothingDetected,
    OtherClass,
    OutOfBound,
    Redundant,
    Unchanged,
    ZeroCount,
)
from triparty.device.gate.detectors import Detections
from triparty.device.gate.traces import Task
from triparty.device.gateway.answers import Held, judge
from triparty.device.gateway.luma import averaged
from triparty.device.gateway.results import Database
from triparty.device.gateway.samples import PART, Sample, Samples
from triparty.device.gateway.settings import WatchSettings
from triparty.device.gateway.stages import Reused
from triparty.device.gateway.stand_ins import agrees, check_measure, is_needed, label, stood_in

PEOPLE = Task("people", "m", "count", (0,), 1.0)
BOXES = Task("boxes", "m", "boxes", (), 1.0)
LIGHT = Task("light", "m", "value", (), 0.5)


def objects(*labels: int, shift: float = 0.0, score: float = 0.9) -> Detections:
    boxes = np.array([(0.1 + shift, 0.1, 0.5 + shift, 0.5)] * len(labels), np.float32)
    return Detections(
        boxes.reshape(-1, 4),
        np.array(labels, np.int32),
        np.full(len(labels), score, np.float32),
    )


@pytest.mark.parametrize(
    ("said", "answers"),
    [
        (NothingDetected("m"), {"people": 0}),
        (ZeroCount("m"), {"people": 0}),
        (OtherClass("m"), {"people": 0}),
        (Redundant("m"), {"people": 0}),
        (Unchanged("m"), {"people": 3}),
        (LowConfidence("m"), {}),
        (OutOfBound("m", 2.0), {}),
        (Reused(objects(0, 0, 2)), {"people": 2}),
    ],
)
def test_what_stands_for_an_answer(said: Any, answers: dict[str, int]) -> None:
    assert stood_in([PEOPLE], {"m": said}, {"people": 3}) == answers


def test_the_first_frame_has_no_answer_that_could_be_unchanged() -> None:
    assert stood_in([PEOPLE], {"m": Unchanged("m")}, {}) == {}


def test_a_filtered_task_without_an_answer_is_redundant() -> None:
    held = Held({"people": 3}, 1.0)
    after, rewards = judge([PEOPLE, LIGHT], held, {}, 2.0, filtered=["people"])
    assert after is held
    assert rewards[0] == 0.0
    assert np.isnan(rewards[1])


@pytest.mark.parametrize(
    ("measure", "seen", "needed"),
    [
        ("as-given", objects(0), True),
        ("as-given", objects(2), False),
        ("nothing-detected", objects(0, 0), True),
        ("nothing-detected", objects(2), False),
        ("nothing-detected", 1.0, True),
        ("count-zero", objects(), False),
        ("count-zero", objects(0), True),
        ("class-not-in:2,7", objects(0, 7), True),
        ("class-not-in:2,7", objects(0), False),
        ("class-not-in:2,7", 2.0, True),
        ("confidence-below:0.5", objects(0), True),
        ("confidence-below:0.5", objects(0, score=0.4), False),
        ("confidence-below:0.5", objects(), False),
        ("regression-above:2", 1.5, True),
        ("regression-above:2", objects(0, 0, 0), False),
    ],
)
def test_what_a_model_saw_is_judged(measure: str, seen: Any, needed: bool) -> None:
    name, _, parameters = measure.partition(":")
    made = named(name, *filter(None, parameters.split(",")))
    check_measure(made, "here")
    assert is_needed(made, [PEOPLE], None, seen) is needed


def test_a_label_that_changed_is_needed() -> None:
    made = named("label-changed")
    assert is_needed(made, [PEOPLE], None, objects(0))
    assert not is_needed(made, [PEOPLE], objects(0, 2), objects(0))
    assert is_needed(made, [PEOPLE], objects(0, 0), objects(0))


def test_measures_of_texts_are_refused() -> None:
    with pytest.raises(SettingsError, match="fewer-words-than"):
        check_measure(named("fewer-words-than", "3"), "here")
    check_measure(class_not_in(1), "here")


def test_what_means_the_same() -> None:
    assert agrees([PEOPLE], objects(0, 2), objects(0))
    assert not agrees([PEOPLE], objects(0), objects(0, 0))
    assert agrees([BOXES], objects(0), objects(0, shift=0.05))
    assert not agrees([BOXES], objects(0), objects(0, shift=0.4))
    assert label([BOXES], objects(0)) == label([BOXES], objects(0, shift=0.4))
    assert label([LIGHT], 1.1) == label([LIGHT], 0.9) != label([LIGHT], 1.6)
    assert label([PEOPLE], objects(0)) != label([PEOPLE], objects(0, 0))


def test_a_plane_is_averaged_by_area() -> None:
    padded = np.zeros((60, 128), np.uint8)
    padded[:, 100:] = 255  # what lies beyond the rows is not seen
    plane = padded[:, :100]
    plane[:30, :50] = 200
    plane[30:, 50:] = np.indices((30, 50)).sum(0) % 2 * 100
    small = averaged(plane, 6, 10)
    assert small.shape == (6, 10)
    expected = plane.reshape(6, 10, 10, 10).mean(axis=(1, 3))
    np.testing.assert_allclose(small, expected, atol=2)
    assert averaged(plane, 60, 100) is plane


def sample(wall: float, pixels: int = 16) -> Sample:
    return Sample(np.zeros((pixels, pixels, 1), np.uint8), wall % 2 == 0, True, wall)


def test_samples_take_no_more_room_than_they_may(tmp_path: Path) -> None:
    kept = Samples(tmp_path / "s", "needed", 100_000)
    for n in range(40 * PART):
        kept.add(sample(float(n)))
    kept.add(sample(9e5))
    kept.flush()
    sizes = [part.stat().st_size for part in (tmp_path / "s").iterdir()]
    assert 50_000 < sum(sizes) <= 100_000
    table = read_table(tmp_path / "s")
    assert table["wall"].tolist() == sorted(table["wall"])
    assert table["wall"][-1] == 9e5
    assert kept.count == 40 * PART + 1


def test_large_samples_are_bounded_too(tmp_path: Path) -> None:
    kept = Samples(tmp_path / "s", "needed", 100_000)
    for n in range(40):
        kept.add(sample(float(n), pixels=100))
    assert sum(part.stat().st_size for part in (tmp_path / "s").iterdir()) <= 100_000


def test_samples_that_cannot_be_written_end_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    kept = Samples(tmp_path / "file" / "s", "needed", 100_000)
    for n in range(2 * PART):
        kept.add(sample(float(n)))
    assert kept.lost == 2 * PART
    assert caplog.text.count("cannot be written") == 1


def test_parts_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", input=np.zeros((2, 4, 4, 1)), needed=np.zeros(2))
    np.savez(tmp_path / "b.npz", input=np.zeros((2, 5, 4, 1)), needed=np.zeros(2))
    with pytest.raises(DatasetError, match=r"b\.npz: 'input' has rows of shape"):
        read_table(tmp_path)
    np.savez(tmp_path / "b.npz", input=np.zeros((2, 4, 4, 1)))
    with pytest.raises(DatasetError, match="column 'needed'"):
        read_table(tmp_path)


def test_a_database_of_before_learns_what_was_filtered(tmp_path: Path) -> None:
    path = tmp_path / "r.db"
    connection = sqlite3.connect(path)
    connection.execute(
        "CREATE TABLE results (id INTEGER PRIMARY KEY, wall REAL NOT NULL, camera TEXT NOT "
        "NULL, time REAL NOT NULL, answers TEXT NOT NULL, seen TEXT NOT NULL)"
    )
    connection.execute("CREATE TABLE events (wall REAL)")
    connection.execute("INSERT INTO results VALUES (1, 5.0, 'a', 0.0, '{}', '{}')")
    connection.execute("PRAGMA user_version = 1")
    connection.commit()
    connection.close()
    database = Database(path, keep_s=1e9)
    row = {"type": "result", "wall": 6.0, "camera": "a", "time": 1.0, "answers": {}, "seen": {}}
    database.write([{**row, "filtered": {"m": "Reused"}}], 6.0)
    database.close()
    Database(path, keep_s=1e9).close()
    connection = sqlite3.connect(path)
    found = connection.execute("SELECT filtered FROM results ORDER BY wall").fetchall()
    connection.close()
    assert found == [("{}",), ('{"m": "Reused"}',)]


HEAD = """
[[cameras]]
name = "a"
url = "a.mp4"
[[models]]
name = "m"
python = "m:f"
[[models]]
name = "idle"
python = "m:f"
[[tasks]]
name = "t"
model = "m"
"""
ONE = '[[filters]]\nname = "f"\nartifact = "x"\nmodel = "m"\n'


@pytest.mark.parametrize(
    ("tables", "told"),
    [
        (ONE.replace('"m"', '"n"'), "unknown model 'n'"),
        (ONE.replace('"m"', '"idle"'), "no task asks the model 'idle'"),
        (ONE + 'cameras = ["b"]', "unknown camera 'b'"),
        (ONE + ONE, "two filters are called 'f'"),
        (ONE + ONE.replace('"f"', '"g"'), "'g' and 'f' both stand before 'm' for camera 'a'"),
        (ONE + "audit_share = 2", "audit_share"),
        (ONE + "threshold = 0.5", "unknown key 'threshold'"),
        (
            f'{ONE}cameras = []\nsamples = "s"\n{ONE.replace(chr(102), "g", 1)}',
            None,
        ),
    ],
)
def test_filters_in_a_file(tables: str, told: str | None, tmp_path: Path) -> None:
    file = tmp_path / "watch.toml"
    file.write_text(HEAD + tables.replace("[[gilters]]", "[[filters]]"))
    if told is None:
        file.write_text(HEAD + ONE + 'cameras = ["a"]\nsamples = "s"\n')
        assert WatchSettings.load(file).filters[0].covers("a")
        return
    with pytest.raises(SettingsError, match=told):
        WatchSettings.load(file)
