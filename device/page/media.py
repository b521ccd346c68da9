"""Clips and pictures of events: files of two folders, by plain names, and nothing else."""

from __future__ import annotations

import re
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from triparty.common.errors import NotFoundError

TYPES: Final[Mapping[str, str]] = {
    ".mp4": "video/mp4",
    ".mkv": "video/x-matroska",
    ".jpg": "image/jpeg",
}
_NAME: Final = re.compile(r"[\w-][\w.-]{0,254}")


def is_kept(folder: Path | None, name: str | None) -> bool:
    """Whether a file that an event names is still there."""
    try:
        return name is not None and bool(find(folder, name))
    except NotFoundError:
        return False


def find(folder: Path | None, name: str) -> tuple[Path, str]:
    """A file of a folder, and its media type.

    Args:
        folder: of clips or of pictures; None if none are kept.
        name: as an event has it.

    Raises:
        NotFoundError: no such file, or a name that is none of ours.
    """
    kind = TYPES.get(Path(name).suffix)
    if folder is None or kind is None or not _NAME.fullmatch(name):
        raise NotFoundError("there is no such file (any more)")
    path = folder / name
    try:
        found = path.lstat()  # a link leads anywhere
    except OSError as error:
        raise NotFoundError("there is no such file (any more)") from error
    if not stat.S_ISREG(found.st_mode):
        raise NotFoundError("there is no such file (any more)")
    return path, kind
