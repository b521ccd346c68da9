"""Who used which model how much, under a bounded number of names.

Names are made by developers and devices, so there is no bound on them. The first that come
are counted one by one; all others together.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

OTHERS = "other"


@dataclass(frozen=True)
class Used:
    """What somebody used.

    Attributes:
        rows: in.
        replies: out.
    """

    rows: int = 0
    replies: int = 0


@dataclass
class Usage:
    """Rows and replies by name.

    Attributes:
        most: names that are counted one by one; 0: none, and nothing is counted.
    """

    most: int
    _rows: Counter[str] = field(default_factory=Counter)
    _replies: Counter[str] = field(default_factory=Counter)

    def count(self, name: str, *, rows: int, replies: int = 1) -> None:
        """Counts one request."""
        if not self.most:
            return
        if name not in self._rows and len(self._rows) - (OTHERS in self._rows) >= self.most:
            name = OTHERS
        self._rows[name] += rows
        self._replies[name] += replies

    def read(self) -> Mapping[str, Used]:
        """What was counted, by name. Any thread may call."""
        return {
            name: Used(rows, self._replies[name]) for name, rows in list(self._rows.items())
        }
