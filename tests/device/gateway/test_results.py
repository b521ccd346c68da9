"""Results are written for their owner alone, forgotten in time, and never stop a camera."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest
from watched import Kept

from triparty.common.errors import StateError
from triparty.device.gateway.clips import prune
from triparty.device.gateway.results import Database, Lines
from triparty.device.gateway.writer import MOST_WAITING, Writer


def result(wall: float) -> dict[str, object]:
    return {
        "type": "result",
        "camera": "yard",
        "wall": wall,
        "time": 1.5,
        "answers": {"people": 2},
        "seen": {"m": [{"label": "person", "score": 0.5, "box": [0, 0, 1, 1]}]},
    }


def event(wall: float) -> dict[str, object]:
    return {
        "type": "event",
        "camera": "yard",
        "wall": wall,
        "time": 1.5,
        "task": "people",
        "before": 0,
        "after": [1, 2],
        "clip": "a.mp4",
    }


def rows(path: Path, table: str) -> list[tuple[object, ...]]:
    connection = sqlite3.connect(path)
    found = connection.execute(f"SELECT * FROM {table} ORDER BY wall").fetchall()
    connection.close()
    return found


def test_rows_are_there_for_a_reader_while_the_writer_writes(tmp_path: Path) -> None:
    path = tmp_path / "inner" / "r.db"
    database = Database(path, keep_s=1e9)
    database.write([result(10.0), event(11.0), {"type": "state"}], 11.0)
    assert [row[1:4] for row in rows(path, "results")] == [(10.0, "yard", 1.5)]
    ((*_, before, after, clip),) = rows(path, "events")
    assert (json.loads(str(before)), json.loads(str(after)), clip) == (0, [1, 2], "a.mp4")
    assert {p.stat().st_mode & 0o77 for p in path.parent.iterdir()} == {0}
    assert {p.name for p in path.parent.iterdir()} >= {"r.db", "r.db-wal"}
    database.close()


def test_old_rows_are_forgotten(tmp_path: Path) -> None:
    path = tmp_path / "r.db"
    database = Database(path, keep_s=100.0)
    for wall in range(0, 300, 10):
        database.write([result(float(wall)), event(float(wall))], float(wall))
    database.close()
    for table in ("results", "events"):
        assert min(float(str(row[1])) for row in rows(path, table)) >= 180


def test_a_database_goes_on_where_it_stopped(tmp_path: Path) -> None:
    for wall in (1.0, 2.0):
        database = Database(tmp_path / "r.db", keep_s=1e9)
        database.write([result(wall)], wall)
        database.close()
    assert len(rows(tmp_path / "r.db", "results")) == 2


@pytest.mark.parametrize("kind", ["text", "newer"])
def test_another_file_is_no_database(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "r.db"
    if kind == "text":
        path.write_text("no database at all, but a long text " * 40)
    else:
        connection = sqlite3.connect(path)
        connection.execute("PRAGMA user_version = 9")
        connection.close()
    with pytest.raises(StateError, match=r"r\.db"):
        Database(path, keep_s=1)


def test_lines_are_appended_and_private(tmp_path: Path) -> None:
    for wall in (1.0, 2.0):
        lines = Lines(tmp_path / "r.jsonl")
        lines.write([result(wall)], wall)
        lines.close()
    text = (tmp_path / "r.jsonl").read_text()
    assert [json.loads(line)["wall"] for line in text.splitlines()] == [1.0, 2.0]
    assert (tmp_path / "r.jsonl").stat().st_mode & 0o77 == 0


def test_a_sink_that_fails_is_counted_and_the_others_go_on() -> None:
    class Full(Kept):
        def write(self, documents: object, now: float) -> None:
            raise OSError(28, "No space left on device")

    kept = Kept()
    writer = Writer([Full(), kept])
    for n in range(3):
        writer.put(result(float(n)))
    writer.put(lambda: 1 / 0 if False else None)
    writer.settle()
    assert len(kept.documents) == 3
    assert (writer.count.failures, writer.count.documents, writer.count.tasks) == (3, 0, 1)
    assert "No space left" in str(writer.count.last_error)
    assert writer.stop(10)
    assert kept.closed


def test_what_waits_for_a_slow_disk_is_bounded() -> None:
    import threading

    release = threading.Event()
    writer = Writer([])
    writer.put(release.wait)
    for n in range(MOST_WAITING + 100):
        writer.put(result(float(n)))
    assert writer.count.dropped >= 99
    release.set()
    assert writer.stop(10)


def test_clips_that_are_old_or_too_many_are_deleted_and_nothing_else(tmp_path: Path) -> None:
    import os

    for n in range(6):
        path = tmp_path / f"c{n}.{'mp4' if n % 2 else 'mkv'}"
        path.write_bytes(bytes(100))
        os.utime(path, (n, n))
    other = tmp_path / "notes.txt"
    other.write_bytes(bytes(1000))
    os.utime(other, (0, 0))
    assert prune(tmp_path, 10_000, oldest=2) == 2
    assert prune(tmp_path, 250, oldest=0) == 2
    assert sorted(p.name for p in tmp_path.iterdir()) == ["c4.mkv", "c5.mp4", "notes.txt"]
