"""The journal of a compilation: what is being made, and what of it is durable.

A journal says of what and how a folder is made (`of`), so that a later run goes on only if it
would have made the same. It is replaced whole and atomically after what it tells of is on the
disk, so it may lag behind and never runs ahead.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from triparty.common.errors import StateError
from triparty.common.files import write_private
from triparty.developer.protect.output import Reached, json_bytes

JOURNAL_FILE = "journal.json"
FORMAT = 1


@dataclass(frozen=True)
class Journal:
    """What is being made, and what of it is durable.

    Attributes:
        of: what decides every byte: the source, the choices, the keys.
        files: sizes of the tensor files that are whole, by their path in the folder.
        partial: how far the files that are not whole are written.
    """

    of: Mapping[str, str]
    files: Mapping[str, int]
    partial: Mapping[str, Reached]

    @classmethod
    def new(cls, of: Mapping[str, str]) -> Journal:
        """A journal of nothing so far."""
        return cls(of, {}, {})

    @classmethod
    def read(cls, path: Path) -> Journal:
        """Reads a journal.

        Raises:
            StateError: absent, damaged or of another format.
        """
        try:
            document = json.loads(path.read_bytes())
            found = document["format"]
            journal = cls(
                of={str(key): str(value) for key, value in document["of"].items()},
                files={str(name): int(size) for name, size in document["files"].items()},
                partial={
                    str(name): Reached(int(at["tensors"]), int(at["offset"]))
                    for name, at in document["partial"].items()
                },
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise StateError(f"{path} is damaged") from None
        if found != FORMAT:
            raise StateError(f"{path} has format {found!r}, expected {FORMAT}")
        return journal

    @property
    def durable_bytes(self) -> int:
        """Bytes of tensor files that need not be made again."""
        partial = sum(reached.offset for reached in self.partial.values())
        return sum(self.files.values()) + partial

    def write(self, path: Path) -> None:
        """Replaces a journal; durable when this returns."""
        document: dict[str, Any] = {
            "format": FORMAT,
            "of": dict(self.of),
            "files": dict(self.files),
            "partial": {
                name: {"tensors": at.tensors, "offset": at.offset}
                for name, at in self.partial.items()
            },
        }
        write_private(path, json_bytes(document))

    def with_part(self, name: str, reached: Reached) -> Journal:
        """With a file that is durable up to a tensor."""
        return replace(self, partial={**self.partial, name: reached})

    def with_whole(self, name: str, size: int) -> Journal:
        """With a file that is whole."""
        partial = {other: at for other, at in self.partial.items() if other != name}
        return replace(self, files={**self.files, name: size}, partial=partial)

    def differences(self, of: Mapping[str, str]) -> list[str]:
        """How another compilation differs from this one, in words."""
        return [
            f"{key}: {self.of.get(key, 'absent')}, now {of.get(key, 'absent')}"
            for key in sorted({*self.of, *of})
            if self.of.get(key) != of.get(key)
        ]
