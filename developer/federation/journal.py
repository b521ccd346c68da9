"""What happened in a federation: one JSON object a line, durable, read while it grows."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Journal:
    """The journal of a run.

    Attributes:
        path: its file.
    """

    path: Path

    def write(self, event: str, /, **members: Any) -> None:
        """Appends an event; it is on the disk when this returns."""
        line = {"at": datetime.now(UTC).isoformat(timespec="milliseconds"), "event": event}
        with self.path.open("a", encoding="ascii") as stream:
            stream.write(json.dumps(line | members) + "\n")
            stream.flush()
            os.fsync(stream.fileno())

    def events(self) -> list[dict[str, Any]]:
        """All whole lines so far; one that a crash cut is left out."""
        try:
            text = self.path.read_text(encoding="ascii", errors="replace")
        except FileNotFoundError:
            return []
        events = []
        for line in text.splitlines():
            try:
                events.append(json.loads(line))
            except ValueError:
                continue
        return events
