"""What is committed stays, what cannot be written waits, and readers see what holds."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from postgres_server import PostgresServer
from sqlalchemy.engine import make_url

from triparty.common.errors import SettingsError, StateError
from triparty.device.events.database import database_url as url_of
from triparty.device.events.event import Event, Wanted
from triparty.device.events.store import RETRY_LONGEST_S, EventStore
from triparty.device.events.stored import StoredEvents

FOREVER = 1e12
NOT_RUN: dict[str, dict[str, Any]] = {
    "filtered": {"m": "Reused"},
    "predicted": {"n": {"value": [2.0], "confidence": 0.75, "from": ["m"]}},
}


def result(wall: float, camera: str = "yard", **answers: object) -> dict[str, Any]:
    seen = {"m": [{"label": "person", "score": 0.5, "box": [0, 0, 1, 1]}]}
    head = {"type": "result", "camera": camera, "wall": wall, "time": 1.5}
    return {**head, "answers": answers or {"people": 2}, "seen": seen}


def event(wall: float, camera: str = "yard", **more: object) -> dict[str, Any]:
    head = {"type": "event", "camera": camera, "wall": wall, "time": 1.5, "task": "people"}
    return {**head, "kind": "enter", "before": 0, "after": [1, 2], **more}


def store_at(path: Path, **more: Any) -> EventStore:
    return EventStore(url_of(path), **{"keep_s": FOREVER, **more})


def walls(store: StoredEvents, **wanted: Any) -> list[float]:
    return [each.wall for each in store.list(Wanted(**wanted))]


@pytest.fixture
def store(database_url: str) -> Iterator[EventStore]:
    made = EventStore(make_url(database_url), keep_s=FOREVER)
    yield made
    made.close()


def test_events_are_there_at_once_and_whole(store: EventStore, database_url: str) -> None:
    more = {"kind": "count", "zone": "door", "label": "person", "clip": "a.mp4"}
    more |= {"snapshot": "a.jpg", "measured": False, "confidence": 0.75}
    store.write([result(9.0), event(10.0, **more), {"type": "state"}], 10.0)
    reader = StoredEvents.open(make_url(database_url))
    (found,) = reader.list(Wanted())
    expected = {"id": found.id, "wall": 10.0, "camera": "yard", "task": "people"}
    assert found == Event(before=0, after=[1, 2], **expected, **more)  # type: ignore[arg-type]
    assert reader.get(found.id) == found
    assert reader.get(found.id + 1) is None
    reader.close()


def test_what_is_asked_for_is_what_comes(store: EventStore) -> None:
    for wall in range(10):
        zone = "door" if wall % 3 == 0 else None
        label = "person" if wall < 5 else "dog"
        task = "people" if wall < 8 else "pets"
        kind = "enter" if wall % 2 else "leave"
        camera = "yard" if wall < 6 else "hall"
        row = event(float(wall), camera, zone=zone, label=label, task=task, kind=kind)
        store.write([row], float(wall))
    assert walls(store) == [9, 8, 7, 6, 5, 4, 3, 2, 1, 0]
    assert walls(store, since=3, until=7) == [6, 5, 4, 3]
    assert walls(store, cameras=["hall"], kinds=["enter"]) == [9, 7]
    assert walls(store, zones=["door"], labels=["person"]) == [3, 0]
    assert walls(store, tasks=["pets", "people"], cameras=["yard"], kinds=["leave"]) == [
        4,
        2,
        0,
    ]
    newest, *_, oldest = store.list(Wanted(), limit=4)
    assert [e.wall for e in store.list(Wanted(before_id=oldest.id), limit=3)] == [5, 4, 3]
    assert walls(store, after_id=newest.id) == []
    assert walls(store, after_id=oldest.id) == [9, 8, 7]


def test_what_held_at_a_time_is_the_last_answer_of_each_task(store: EventStore) -> None:
    store.write(
        [
            result(10, people=1, cats=5),
            result(20, people=2),
            result(20, "hall", people=7),
            event(25, zone="door", after=True),
            result(30, people=3),
        ],
        30.0,
    )
    assert store.answers_at(9.9) == {}
    assert store.answers_at(20) == {"yard": {"people": 2, "cats": 5}, "hall": {"people": 7}}
    at_door = {"people": 3, "cats": 5, "people@door": True}
    assert store.answers_at(99, cameras=["yard", "none"]) == {"yard": at_door}


def test_old_rows_are_forgotten_and_no_number_is_given_twice(database_url: str) -> None:
    store = EventStore(make_url(database_url), keep_s=100.0)
    for wall in range(0, 300, 10):
        store.write([result(float(wall)), event(float(wall))], float(wall))
    assert 180 <= min(walls(store)) <= 200
    (last,) = store.list(Wanted(), limit=1)
    store.write([], 1e6)
    assert walls(store) == []
    store.write([event(1e6)], 1e6)
    assert store.list(Wanted())[0].id > last.id
    store.close()


def test_a_store_goes_on_where_it_stopped(database_url: str) -> None:
    for wall in (1.0, 2.0):
        store = EventStore(make_url(database_url), keep_s=FOREVER)
        store.write([result(wall, n=wall), event(wall)], wall)
        assert store.answers_at(99)["yard"]["n"] == wall
        assert len(walls(store)) == wall
        store.close()


def test_results_wait_for_their_second_and_events_do_not(tmp_path: Path) -> None:
    store, reader = store_at(tmp_path / "r.db"), StoredEvents.open(url_of(tmp_path / "r.db"))
    store.write([result(1, n=1)], 100.0)
    store.write([result(2, n=2)], 100.5)
    assert reader.answers_at(99)["yard"]["n"] == 1
    store.write([], 101.0)
    assert reader.answers_at(99)["yard"]["n"] == 2
    store.write([result(3, n=3)], 50.0)  # somebody set the clock back
    assert reader.answers_at(99)["yard"]["n"] == 3
    reader.close()
    store.close()
    assert {p.stat().st_mode & 0o77 for p in tmp_path.iterdir()} == {0}


class TestTrouble:
    def fill(self, store: EventStore, pages: int | None) -> None:
        """Lets the database have no more pages than it has, or any number."""
        with store._engine.connect() as connection:
            there = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
            connection.exec_driver_sql(f"PRAGMA max_page_count = {pages or there}")

    def test_events_wait_for_room_on_the_disk(self, tmp_path: Path) -> None:
        store = store_at(tmp_path / "r.db", most_results=20)
        store.write([event(0.0)], 0.0)
        self.fill(store, None)
        many = [event(float(n), label="x" * 150) for n in range(1, 200)]
        for n, each in enumerate(many, 1):
            store.write([each, result(float(n), text="y" * 500)], float(n))
        assert "full" in str(store.status.last_error)
        kept = len(walls(store))
        assert store.status.waiting == 200 - len(store.list(Wanted(), limit=999)) > 50
        assert store.status.results_dropped > 100 > store.status.events_lost == 0
        self.fill(store, 1 << 20)
        store.write([], 200.0 + RETRY_LONGEST_S)
        assert [e.wall for e in reversed(store.list(Wanted(), limit=999))] == list(range(200))
        assert (store.status.waiting, store.status.last_error) == (0, None)
        assert kept < 200
        store.close()

    def test_what_waits_is_bounded_and_what_is_lost_is_counted(self, tmp_path: Path) -> None:
        store = store_at(tmp_path / "r.db", most_events=5, most_results=3)
        self.fill(store, None)
        for n in range(100):
            big = {"label": "x" * 4000}
            store.write([event(float(n), **big), result(float(n), n="y" * 4000)], float(n))
        written = len(store.list(Wanted(), limit=999))
        assert store.status.waiting == 5
        assert store.status.events_lost == 95 - written > 50
        self.fill(store, 1 << 20)
        store.write([], 100.0 + RETRY_LONGEST_S)
        assert walls(store)[:5] == [99.0, 98.0, 97.0, 96.0, 95.0], "the oldest go first"
        store.close()

    def test_what_waits_at_the_end_is_lost_and_counted(self, tmp_path: Path) -> None:
        store = store_at(tmp_path / "r.db")
        self.fill(store, None)
        for n in range(50):
            store.write([event(float(n), label="x" * 4000), result(float(n))], float(n))
        waiting = store.status.waiting
        store.close()
        assert store.status.events_lost == waiting > 20

    def test_a_write_begins_with_the_write_lock(self, tmp_path: Path) -> None:
        store = store_at(tmp_path / "r.db")
        other = sqlite3.connect(tmp_path / "r.db", timeout=0)
        with store._writer.begin(), pytest.raises(sqlite3.OperationalError, match="locked"):
            other.execute("BEGIN IMMEDIATE")
        with store.engine.connect():
            other.execute("BEGIN IMMEDIATE")  # a reader keeps nobody from writing
        other.close()
        store.close()

    def test_a_row_that_cannot_be_held_holds_up_no_other(self, store: EventStore) -> None:
        odd = event(2.0, label="a\0b") if "postgresql" in str(store._engine.url) else event(2.0)
        odd["wall"] = odd["wall"] if "\0" in str(odd.get("label")) else {"no": "number"}
        store.write([event(1.0), odd, event(3.0)], 3.0)
        assert walls(store) == [3.0, 1.0]
        assert (store.status.events_lost, store.status.waiting) == (1, 0)

    def test_events_wait_while_the_database_is_away(self, postgres: PostgresServer) -> None:
        name = postgres.new_database()
        store = EventStore(make_url(postgres.url(name)), keep_s=FOREVER)
        store.write([event(1.0)], 1.0)
        postgres.run(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
        postgres.disconnect_all(name)
        store.write([event(2.0), result(2.0)], 2.0)
        store.write([event(3.0)], 2.1)
        assert store.status.waiting == 2
        assert store.status.last_error
        postgres.run(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
        store.write([], 2.2)
        assert store.status.waiting == 2, "it tries again at once"
        store.write([], 60.0)
        assert walls(store) == [3.0, 2.0, 1.0]
        assert store.answers_at(99) == {"yard": {"people": [1, 2]}}
        store.close()
        postgres.drop_database(name)

    def test_a_commit_whose_answer_was_lost_is_not_repeated(
        self, store: EventStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from sqlalchemy.exc import OperationalError

        commit = store._commit

        def lost(rows: Sequence[Any], insert: Any) -> int:
            commit(rows, insert)
            monkeypatch.setattr(store, "_commit", commit)
            raise OperationalError("COMMIT", {}, Exception("connection lost"))

        monkeypatch.setattr(store, "_commit", lost)
        store.write([event(1.0)], 1.0)
        assert store.status.waiting == 1
        store.write([event(50.0)], 50.0)
        assert walls(store) == [50.0, 1.0]
        assert (store.status.events, store.status.events_lost) == (1, 0)


OLD = """
CREATE TABLE results (id INTEGER PRIMARY KEY, wall REAL NOT NULL, camera TEXT NOT NULL,
    time REAL NOT NULL, answers TEXT NOT NULL, seen TEXT NOT NULL {filtered});
CREATE INDEX results_by_wall ON results (wall);
CREATE INDEX results_by_camera ON results (camera, wall);
CREATE TABLE events (id INTEGER PRIMARY KEY, wall REAL NOT NULL, camera TEXT NOT NULL,
    time REAL NOT NULL, task TEXT NOT NULL, before TEXT NOT NULL, after TEXT NOT NULL,
    clip TEXT);
CREATE INDEX events_by_wall ON events (wall);
INSERT INTO results (wall, camera, time, answers, seen) VALUES
    (5, 'yard', 1, '{{"n": 4}}', '{{}}');
INSERT INTO events (id, wall, camera, time, task, before, after, clip) VALUES
    (7, 5, 'yard', 1, 'n', '0', '4', 'a.mp4'), (9, 6, 'yard', 1, 'n', 'true', 'false', NULL);
PRAGMA user_version = {version};
"""


@pytest.mark.parametrize("version", [1, 2])
def test_files_of_earlier_versions_are_taken_over(version: int, tmp_path: Path) -> None:
    filtered = ", filtered TEXT NOT NULL DEFAULT '{}'" if version == 2 else ""
    connection = sqlite3.connect(tmp_path / "r.db")
    connection.executescript(OLD.format(version=version, filtered=filtered))
    connection.close()
    for _ in range(2):
        store = store_at(tmp_path / "r.db")
        second, first = store.list(Wanted(until=9.0))
        assert (first.id, first.kind, first.after, first.clip) == (7, "enter", 4, "a.mp4")
        assert (second.id, second.kind, second.before) == (9, "leave", True)
        assert store.answers_at(5.5)["yard"] == {"n": 4}
        store.write([event(10.0), result(10.0) | NOT_RUN], 10.0)
        assert store.list(Wanted())[0].id > 9
        store.close()
    connection = sqlite3.connect(tmp_path / "r.db")
    query = "SELECT filtered, predicted FROM results ORDER BY id"
    found = connection.execute(query).fetchall()
    connection.close()
    assert found == [("{}", "{}"), *[tuple(json.dumps(NOT_RUN[key]) for key in NOT_RUN)] * 2]


def test_a_database_of_the_version_before_is_taken_over(
    store: EventStore, database_url: str
) -> None:
    """As version 3 left it, which SQLite and PostgreSQL both had."""
    store.write([event(5.0), result(5.0)], 5.0)
    with store._writer.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE results DROP COLUMN predicted")
        connection.exec_driver_sql("UPDATE store_version SET version = 3")
    again = EventStore(make_url(database_url), keep_s=FOREVER)
    try:
        again.write([event(6.0), result(6.0) | NOT_RUN], 6.0)
        assert walls(again) == [6.0, 5.0]
        with again._writer.begin() as connection:
            query = "SELECT wall, predicted FROM results ORDER BY wall"
            found = [tuple(row) for row in connection.exec_driver_sql(query)]
    finally:
        again.close()
    assert found == [(5.0, "{}"), (6.0, json.dumps(NOT_RUN["predicted"]))]


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
        store_at(path)


def test_a_url_of_another_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="expected the path"):
        url_of("mysql://x@y/z")
    url = url_of("postgresql+psycopg://me@db/events", password="s/cret")
    assert url.password == "s/cret"
    assert "cret" not in str(url)
    assert json.dumps(str(url_of("r.db", folder=tmp_path)))[1:-1].endswith(f"{tmp_path}/r.db")
