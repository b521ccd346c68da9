"""Events that wait for their database, in a file that outlives the process.

The file has its whole size from the beginning, so that a disk that is full by now takes them
all the same. A record is a line: a checksum that goes on from that of the line before, a space,
JSON. What a crash left half written, and what is left of rows that were forgotten, does not go
on from anything, and so ends the file.
"""

from __future__ import annotations

import json
import logging
import os
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from triparty.common.files import PRIVATE_MODE

ROOM_BYTES: Final = 8 << 20
_SUM_BYTES: Final = 9  # eight digits and a space

log = logging.getLogger(__name__)

Row = dict[str, Any]


class Journal:
    """The file; for one thread. Where it cannot be had, it holds nothing, and the log says so.

    Args:
        path: of it; made for its owner alone.
        room: bytes.

    Attributes:
        path: as given.
        used: bytes of the rows that it holds.
    """

    def __init__(self, path: Path, *, room: int = ROOM_BYTES) -> None:
        """Takes the room, and reads what an earlier process left."""
        self.path, self.used = path, 0
        self._sum = 0
        self._rows: list[Row] = []
        self._room, self._file = 0, -1
        try:
            self._file = _open(path)
            self._room = _with_room(self._file, room)
            self._read()
        except OSError as error:
            log.error(
                "%s cannot be made: events that wait are in memory alone: %s", path, error
            )

    def rows(self) -> list[Row]:
        """What an earlier process left, oldest first."""
        return list(self._rows)

    def append(self, rows: Sequence[Mapping[str, Any]]) -> int:
        """Holds rows from now on, in order, while there is room.

        Returns:
            Of how many the first are on the disk.
        """
        data, end, held = b"", self._sum, 0
        for row in rows:
            line = json.dumps(row).encode() + b"\n"
            following = zlib.crc32(line, end)
            if self.used + len(data) + _SUM_BYTES + len(line) > self._room:
                break
            data, end, held = data + b"%08x " % following + line, following, held + 1
        if not held:
            return 0
        try:
            self._write(data, self.used)
        except OSError as error:
            log.error("%s cannot be written: %s", self.path, error)
            return 0
        self.used, self._sum = self.used + len(data), end
        return held

    def clear(self) -> None:
        """Forgets all rows."""
        if not self.used:
            return
        try:
            self._write(bytes(_SUM_BYTES), 0)
        except OSError as error:
            log.error("%s cannot be written: %s", self.path, error)
            return
        self.used, self._sum, self._rows = 0, 0, []

    def close(self) -> None:
        """Lets the file go; its rows stay."""
        if self._file >= 0:
            os.close(self._file)
            self._file, self._room = -1, 0

    def _write(self, data: bytes, place: int) -> None:
        while data:
            written = os.pwrite(self._file, data, place)
            data, place = data[written:], place + written
        os.fdatasync(self._file)

    def _read(self) -> None:
        data = os.pread(self._file, self._room, 0)
        for line in data.splitlines(keepends=True):
            following = zlib.crc32(line[_SUM_BYTES:], self._sum)
            if line[:_SUM_BYTES] != b"%08x " % following or not line.endswith(b"\n"):
                return
            try:
                row = json.loads(line[_SUM_BYTES:])
            except ValueError:
                return
            if not isinstance(row, dict):
                return
            self._rows.append(row)
            self.used, self._sum = self.used + len(line), following


def _open(path: Path) -> int:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    return os.open(path, os.O_RDWR | os.O_CREAT, PRIVATE_MODE)


def _with_room(file: int, room: int) -> int:
    """Fills a file with zeros up to `room` bytes; how many it has then, in use or not."""
    size = os.fstat(file).st_size
    try:
        if size < room:
            os.pwrite(file, bytes(room - size), size)
            os.fsync(file)
    except OSError as error:
        log.error("no room for events that will wait for the database: %s", error)
    return min(room, os.fstat(file).st_size)
