"""The tables of the store: results, events, and what webhooks have not delivered yet."""

from __future__ import annotations

from typing import Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Double,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
)

SCHEMA_VERSION: Final = 4
"""1 had no `filtered`; 2 had events without kind, zone, label, snapshot; 3 no `predicted`."""

METADATA: Final = MetaData()
_ID: Final = BigInteger().with_variant(Integer, "sqlite")
NAME: Final = String(200)


def _number() -> Column[int]:
    return Column("id", _ID, primary_key=True, autoincrement=True)


VERSION: Final = Table("store_version", METADATA, Column("version", Integer, primary_key=True))

RESULTS: Final = Table(
    "results",
    METADATA,
    _number(),
    Column("wall", Double, nullable=False),  # seconds since 1970
    Column("camera", NAME, nullable=False),
    Column("time", Double, nullable=False),  # seconds on the stream's clock
    Column("answers", Text, nullable=False),  # JSON: by task, and by task@zone
    Column("seen", Text, nullable=False),  # JSON: by model
    Column("filtered", Text, nullable=False, server_default="{}"),  # JSON: by model not run
    Column("predicted", Text, nullable=False, server_default="{}"),  # JSON: by model not run
    Index("results_by_wall", "wall"),
    Index("results_by_camera", "camera", "wall"),
)

EVENTS: Final = Table(
    "events",
    METADATA,
    _number(),
    Column("key", String(32), nullable=False, unique=True),  # so that a repetition adds nothing
    Column("wall", Double, nullable=False),
    Column("camera", NAME, nullable=False),
    Column("time", Double, nullable=False),
    Column("task", NAME, nullable=False),
    Column("kind", String(16), nullable=False),
    Column("zone", NAME),
    Column("label", NAME),
    Column("before", Text, nullable=False),  # JSON
    Column("after", Text, nullable=False),  # JSON
    Column("clip", Text),  # name of a file in the folder of clips
    Column("snapshot", Text),  # name of a file in the folder of snapshots
    Column("measured", Boolean, nullable=False),
    Column("confidence", Double),
    Index("events_by_wall", "wall"),
    Index("events_by_camera", "camera", "wall"),
    Index("events_by_task", "task", "wall"),
    sqlite_autoincrement=True,  # an id is never given twice, not even after deleting
)

OUTBOX: Final = Table(
    "outbox",
    METADATA,
    _number(),
    Column("hook", NAME, nullable=False),
    Column("event", _ID, nullable=False),
    Column("body", Text, nullable=False),  # JSON, as it is sent
    Column("made", Double, nullable=False),  # seconds since 1970
    Column("due", Double, nullable=False),  # not to be tried before
    Column("tries", Integer, nullable=False),
    Index("outbox_by_hook", "hook", "due"),
    sqlite_autoincrement=True,
)
