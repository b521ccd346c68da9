"""Results are written for their owner alone, forgotten in time, and never stop a camera."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from pathlib import Path

from watched import Kept

from triparty.device.gateway.clips import CLIPS, prune
from triparty.device.gateway.results import Document, Lines
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


def test_an_event_is_kept_before_anybody_is_told_and_the_keeper_ends_last() -> None:
    """Whoever hears of an event may rely on its being in the database."""
    said: list[str] = []

    class Named(Kept):
        def __init__(self, name: str) -> None:
            super().__init__()
            self.name = name

        def write(self, documents: Sequence[Document], now: float) -> None:
            said.extend(f"{self.name} {document['type']}" for document in documents)

        def close(self) -> None:
            said.append(f"{self.name} closed")

    writer = Writer([Named("store"), Named("broker")])
    writer.put({"type": "event"})
    assert writer.stop(10)
    assert said == ["store event", "broker event", "broker closed", "store closed"]


def test_what_piled_up_is_written_at_once() -> None:
    """So that a slow disk costs one wait for many events, also at the end."""
    began, release, calls = threading.Event(), threading.Event(), list[list[float]]()

    class Slow(Kept):
        def write(self, documents: Sequence[Document], now: float) -> None:
            calls.append([document["wall"] for document in documents])

    writer = Writer([Slow()])
    writer.put(lambda: (began.set(), release.wait(10)))
    began.wait(10)
    for n in range(5):
        writer.put(result(float(n)))
    done = threading.Event()
    writer.put(done.set)
    writer.put(result(5.0))
    release.set()
    assert writer.stop(10)
    assert done.is_set()
    assert calls == [[0.0, 1.0, 2.0, 3.0, 4.0], [5.0]], "in order, tasks between"
    assert writer.count.documents == 6


def test_what_waits_for_a_slow_disk_is_bounded() -> None:
    release = threading.Event()
    writer = Writer([])
    writer.put(release.wait)
    for n in range(MOST_WAITING + 100):
        writer.put(result(float(n)))
    assert writer.count.dropped >= 99
    assert writer.put({"type": "event"}), "there is room for events when there is none else"
    assert writer.count.events_dropped == 0
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
    assert prune(tmp_path, CLIPS, 10_000, oldest=2) == 2
    assert prune(tmp_path, CLIPS, 250, oldest=0) == 2
    assert sorted(p.name for p in tmp_path.iterdir()) == ["c4.mkv", "c5.mp4", "notes.txt"]
