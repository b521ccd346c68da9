"""What a database could not take is in a file: whole, once, after any death, on a full disk."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError

from triparty.device.events import store as module
from triparty.device.events.database import database_url as url_of
from triparty.device.events.event import Wanted
from triparty.device.events.journal import Journal
from triparty.device.events.store import MOST_EVENTS, RETRY_LONGEST_S, EventStore
from triparty.device.events.stored import StoredEvents

ROOM = 4096


def event(wall: float, **more: object) -> dict[str, Any]:
    head = {"type": "event", "camera": "yard", "wall": wall, "time": 1.5, "task": "people"}
    return {**head, "kind": "enter", "before": 0, "after": 1, **more}


def store_in(folder: Path, *, room: int = ROOM * 64, **more: Any) -> EventStore:
    journal = Journal(folder / "r.db-waiting", room=room)
    return EventStore(url_of(folder / "r.db"), keep_s=1e12, journal=journal, **more)


def walls(store: StoredEvents) -> list[float]:
    return sorted(event.wall for event in store.list(Wanted(), limit=9999))


def break_down(store: EventStore, patch: pytest.MonkeyPatch) -> None:
    """From now on the database takes nothing."""

    def full(*_: object) -> int:
        raise OperationalError("INSERT", {}, Exception("database or disk is full"))

    patch.setattr(store, "_commit", full)


class TestJournal:
    def test_rows_are_there_in_order_until_they_are_forgotten(self, tmp_path: Path) -> None:
        path = tmp_path / "j"
        journal, rows = Journal(path, room=ROOM), [{"key": str(n)} for n in range(9)]
        assert journal.append(rows[:4]) == 4
        assert journal.append(rows[4:]) == 5
        assert Journal(path, room=ROOM).rows() == rows
        assert path.stat().st_mode & 0o77 == 0
        journal.clear()
        assert Journal(path, room=ROOM).rows() == []
        journal.append(rows[8:])
        assert Journal(path, room=ROOM).rows() == rows[8:], "older ones stay forgotten"

    def test_it_never_grows_and_says_what_found_no_room(self, tmp_path: Path) -> None:
        path = tmp_path / "j"
        journal = Journal(path, room=ROOM)
        assert path.stat().st_blocks * 512 >= ROOM, "its room is taken from the beginning"
        rows = [{"key": f"{n:032d}"} for n in range(200)]
        held = journal.append(rows)
        assert 40 < held < 100
        assert journal.append(rows[held:]) == 0
        assert path.stat().st_size == ROOM
        assert Journal(path, room=ROOM).rows() == rows[:held]

    @pytest.mark.parametrize("cut", [0, 1, 20, 60])
    def test_a_half_written_row_ends_it(self, tmp_path: Path, cut: int) -> None:
        path = tmp_path / "j"
        journal = Journal(path, room=ROOM)
        journal.append([{"key": "a" * 8}])
        begun = journal.used
        journal.append([{"key": "b" * 60}])
        with path.open("r+b") as file:
            file.seek(begun + cut)
            file.write(b"\xff" * (journal.used - begun - cut))
        again = Journal(path, room=ROOM)
        assert again.rows() == [{"key": "a" * 8}]
        again.append([{"key": "c"}])
        assert Journal(path, room=ROOM).rows() == [{"key": "a" * 8}, {"key": "c"}]

    def test_another_file_holds_nothing(self, tmp_path: Path) -> None:
        for content in (b"", b"no journal\n" * 9, os.urandom(999), b"00000000 {}\n"):
            (tmp_path / "j").write_bytes(content)
            assert Journal(tmp_path / "j", room=ROOM).rows() == []

    def test_without_a_place_it_holds_nothing_and_stops_nobody(self, tmp_path: Path) -> None:
        (tmp_path / "j").mkdir()
        journal = Journal(tmp_path / "j", room=ROOM)
        assert (journal.append([{"key": "a"}]), journal.rows()) == (0, [])
        journal.clear()


def test_events_that_were_taken_outlive_the_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = store_in(tmp_path)
    store.write([event(1.0)], 1.0)
    break_down(store, monkeypatch)
    for wall in (2.0, 3.0, 4.0):
        store.write([event(wall, label="x" * 50)], wall)
    assert store.status.waiting == 3
    again = store_in(tmp_path)  # the first was not closed: as after kill -9
    assert again.status.waiting == 3
    again.write([], 5.0)
    assert walls(again) == [1.0, 2.0, 3.0, 4.0]
    assert (again.status.waiting, again.status.events) == (0, 3)
    again.close()
    third = store_in(tmp_path)
    assert third.status.waiting == 0, "what was written is forgotten"
    third.close()


def test_what_was_written_just_before_a_crash_is_not_written_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = store_in(tmp_path)
    with monkeypatch.context() as patch:
        break_down(store, patch)
        store.write([event(1.0), event(2.0)], 1.0)
    monkeypatch.setattr(Journal, "clear", lambda journal: None)
    store.write([], 1.0 + RETRY_LONGEST_S)
    assert walls(store) == [1.0, 2.0]
    again = store_in(tmp_path)
    assert again.status.waiting == 2
    again.write([], 99.0)
    assert walls(again) == [1.0, 2.0]
    again.close()


def test_what_comes_while_only_a_part_could_be_written_is_kept_as_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BATCH", 2)
    store = store_in(tmp_path)
    commit = store._commit
    break_down(store, monkeypatch)
    store.write([event(float(n)) for n in range(5)], 1.0)

    def once(rows: Any, insert: Any) -> int:
        break_down(store, monkeypatch)
        return commit(rows, insert)

    monkeypatch.setattr(store, "_commit", once)
    store.write([event(5.0), event(6.0)], 1.0 + RETRY_LONGEST_S)
    assert walls(store) == [0.0, 1.0]
    assert store.status.waiting == 5
    again = store_in(tmp_path)
    again.write([], 99.0)
    assert walls(again) == [float(n) for n in range(7)]
    again.close()


def test_what_waits_at_a_clean_end_is_kept_and_not_counted_as_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        store = store_in(tmp_path, room=1024)
        break_down(store, patch)
        store.write([event(float(n)) for n in range(100)], 1.0)
        store.close()
    kept = 100 - store.status.events_lost
    assert 1 <= kept < 10, "what found no room in the file is lost, and counted"
    again = store_in(tmp_path, room=1024)
    again.write([], 1.0)
    assert walls(again) == [float(n) for n in range(kept)]
    again.close()


def test_a_file_has_room_for_all_that_may_wait(tmp_path: Path) -> None:
    """Of events as they are: with long names, a clip and a snapshot."""
    name = "a-camera-with-a-long-name-20260101T000000.000-some-task@a-zone"
    more = {"clip": f"{name}.mp4", "snapshot": f"{name}.jpg", "zone": "a-zone", "label": "dog"}
    store = EventStore(
        url_of(tmp_path / "r.db"), keep_s=1e12, journal=Journal(tmp_path / "r.db-waiting")
    )
    with pytest.MonkeyPatch.context() as patch:
        break_down(store, patch)
        store.write([event(float(n), **more) for n in range(MOST_EVENTS)], 1.0)
        store.close()
    assert store.status.events_lost == 0


TAKES_AND_DIES = """
import os, signal, sys
from pathlib import Path
from triparty.device.events import store as module
from triparty.device.events.database import database_url
from triparty.device.events.journal import Journal
from triparty.device.events.store import EventStore

folder = Path(sys.argv[1])
journal = Journal(folder / "r.db-waiting")
store = EventStore(database_url(folder / "r.db"), keep_s=1e12, journal=journal)
with store.engine.connect() as connection:
    there = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
    connection.exec_driver_sql(f"PRAGMA max_page_count = {there}")
head = {"type": "event", "camera": "yard", "time": 1.5, "task": "people", "kind": "enter"}
for wall in range(300):
    store.write([{**head, "wall": wall, "before": 0, "after": "x" * 300}], float(wall))
    print(wall, store.status.waiting, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_every_event_that_was_acknowledged_is_there_after_kill_9(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", TAKES_AND_DIES, tmp_path],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    told = [tuple(map(int, line.split())) for line in done.stdout.splitlines()]
    acknowledged, waited = zip(*told, strict=True)
    assert len(acknowledged) == 300
    assert waited[-1] > 100, "the database took all of them"
    store = store_in(tmp_path, room=1 << 20)
    store.write([], 1e3)
    assert walls(store) == [float(wall) for wall in acknowledged]
    store.close()
