"""Where a protected model grows until it is whole, so that a killed run can go on.

    .OUT.part/           beside OUT, for its owner alone, locked by the process that writes
        journal.json     what is being made, and what of it is durable
        out/             what becomes OUT by one rename
            secrets/     the master key, there before anything is made with it

A run that finds the folder of an earlier one takes up its master key, keeps the tensor files
that the journal tells of, removes everything else and goes on behind the last durable tensor.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from triparty.common.errors import StateError
from triparty.common.files import (
    locked,
    make_private_folder,
    sync_folder,
    write_private,
)
from triparty.developer.protect.journal import JOURNAL_FILE, Journal
from triparty.developer.protect.keys import Keys
from triparty.developer.protect.output import Made, Reached, check_absent, write_tensors
from triparty.developer.protect.secret import MASTER_FILE, SECRETS_FOLDER

SPARE_BYTES = 64 << 20
"""Disk space for all that is small: headers, tokenizer, head, configuration."""

_OUT, _LOCK, _KEY = "out", ".lock", "key"
_NAMED_DIFFERENCES = 3


def part_folder(target: Path) -> Path:
    """Where the folder `target` grows."""
    return target.with_name(f".{target.name}.part")


def check_space(target: Path, size_bytes: int) -> None:
    """Refuses what the disk has no room for.

    Args:
        target: the folder to be made; what is there of it already counts as written.
        size_bytes: of all tensors that will be in it.

    Raises:
        StateError: too little room.
    """
    there = sum(p.stat().st_size for p in part_folder(target).rglob("*") if p.is_file())
    needed = max(0, size_bytes - there) + SPARE_BYTES
    existing = next(folder for folder in target.absolute().parents if folder.is_dir())
    free = shutil.disk_usage(existing).free
    if free < needed:
        raise StateError(
            f"{target} needs {_size(needed)} of disk space, and the disk of {existing} has "
            f"{_size(free)} left: free some, or name a folder on another disk"
        )


def is_just_made(target: Path) -> bool:
    """Whether a run was killed between making `target` whole and tidying up after itself."""
    part = part_folder(target)
    return target.is_dir() and (part / JOURNAL_FILE).is_file() and not (part / _OUT).exists()


@contextmanager
def workspace(
    target: Path, of: Mapping[str, str], keys: Keys, *, restart: bool = False
) -> Iterator[Workspace]:
    """The folder in which `target` grows, new or where an earlier run was cut off.

    What was made so far stays for a later run if the block fails for a reason that may pass
    (a full disk, an interruption), and is removed if it would fail again.

    Args:
        target: the folder to be made.
        of: what decides every byte of it; see `Journal`.
        keys: to begin with; an earlier run's are taken up instead.
        restart: discard what an earlier run made.

    Raises:
        StateError: another process makes the same folder, or an earlier run made something
            else, or its folder is damaged; or the block could not write.
    """
    part = part_folder(target)
    with ExitStack() as stack:
        part.parent.mkdir(parents=True, exist_ok=True)
        make_private_folder(part)
        try:
            stack.enter_context(locked(part, wait=False))
        except (BlockingIOError, FileNotFoundError) as error:
            raise StateError(
                f"another process is making {target}: let it end, or name another folder"
            ) from error
        try:
            yield _opened(part, target, of, keys, restart)
        except OSError as error:
            raise StateError(
                f"{target} is not whole yet: {error}; what was made so far is kept: with the "
                f"cause gone, the same command goes on (or remove {part})"
            ) from error
        except (MemoryError, StateError):
            raise
        except Exception:
            _remove(part)
            raise
        _remove(part)


class Workspace:
    """The folder of one compilation.

    Attributes:
        keys: of the compilation, this run's or those of the one that began it.
        folder: what becomes the target.
        is_finished: whether an earlier run made the target whole.
    """

    def __init__(self, part: Path, target: Path, journal: Journal, keys: Keys) -> None:
        """Takes over a folder that is in order."""
        self.keys, self.folder = keys, part / _OUT
        self.is_finished = is_just_made(target)
        self._part, self._target, self._journal = part, target, journal

    @property
    def written_bytes(self) -> int:
        """Bytes of tensor files that need not be made again."""
        return self._journal.durable_bytes

    def write_tensors(self, name: str, tensors: Mapping[str, Made]) -> None:
        """Writes a safetensors file, or what an earlier run left of it to do.

        Args:
            name: path in the folder.
            tensors: by name; see `output.write_tensors`.

        Raises:
            StateError: what an earlier run left is not the beginning of it.
        """
        if name in self._journal.files:
            return
        path = self.folder / name
        path.parent.mkdir(exist_ok=True)

        def record(reached: Reached) -> None:
            self._note(self._journal.with_part(name, reached))

        reached = self._journal.partial.get(name)
        try:
            end = write_tensors(path, tensors, reached=reached, record=record)
        except StateError as error:
            raise _damaged(error, self._part) from error
        self._note(self._journal.with_whole(name, end.offset))

    def finish(self) -> None:
        """Makes the target appear, whole and durable.

        Raises:
            StateError: somebody else made it meanwhile.
        """
        for folder in (*(f for f in self.folder.rglob("*") if f.is_dir()), self.folder):
            sync_folder(folder)
        check_absent(self._target)
        os.rename(self.folder, self._target)
        sync_folder(self._target.parent)

    def _note(self, journal: Journal) -> None:
        journal.write(self._part / JOURNAL_FILE)
        self._journal = journal


def _opened(
    part: Path, target: Path, of: Mapping[str, str], keys: Keys, restart: bool
) -> Workspace:
    """The workspace in a folder that is locked."""
    if restart or not (part / JOURNAL_FILE).exists():
        _empty(part)
        return _new(part, target, of, keys)
    try:
        journal = Journal.read(part / JOURNAL_FILE)
    except StateError as error:
        raise _damaged(error, part) from error
    differences = journal.differences({**of, _KEY: journal.of.get(_KEY, "")})
    if is_just_made(target):
        if differences:
            check_absent(target)
        return Workspace(part, target, journal, keys)
    if differences:
        named = "; ".join(differences[:_NAMED_DIFFERENCES])
        more = len(differences) - _NAMED_DIFFERENCES
        raise StateError(
            f"an earlier run began to make {target} of something else ({named}"
            f"{f'; and {more} more' if more > 0 else ''}): repeat that command, or "
            f"{_remedy(part)}"
        )
    try:
        kept = _kept_keys(part, journal)
        _keep(part / _OUT, journal)
    except StateError as error:
        raise _damaged(error, part) from error
    return Workspace(part, target, journal, kept)


def _damaged(error: StateError, part: Path) -> StateError:
    return StateError(f"what an earlier run left is of no use: {error}; {_remedy(part)}")


def _remedy(part: Path) -> str:
    return f"run it with --restart, or remove {part}, to begin anew"


def _new(part: Path, target: Path, of: Mapping[str, str], keys: Keys) -> Workspace:
    """A workspace whose master key is durable before anything is made with it."""
    secrets = part / _OUT / SECRETS_FOLDER
    secrets.parent.mkdir()
    make_private_folder(secrets)
    write_private(secrets / MASTER_FILE, keys.master)
    for folder in (secrets.parent, part, part.parent):
        sync_folder(folder)
    journal = Journal.new({**of, _KEY: _digest(keys)})
    journal.write(part / JOURNAL_FILE)
    return Workspace(part, target, journal, keys)


def _kept_keys(part: Path, journal: Journal) -> Keys:
    path = part / _OUT / SECRETS_FOLDER / MASTER_FILE
    try:
        keys = Keys(path.read_bytes())
    except FileNotFoundError as error:
        raise StateError(f"{path} is gone") from error
    if _digest(keys) != journal.of.get(_KEY):
        raise StateError(f"{path} is not the key that the journal tells of")
    return keys


def _keep(folder: Path, journal: Journal) -> None:
    """Keeps what the journal tells of, and the master key; removes everything else."""
    kept = {folder / name for name in (*journal.files, *journal.partial)}
    for name, size in journal.files.items():
        if not (folder / name).is_file() or (folder / name).stat().st_size != size:
            raise StateError(f"{folder / name} is not {size} bytes long")
    for name, reached in journal.partial.items():
        if not (folder / name).is_file() or (folder / name).stat().st_size < reached.offset:
            raise StateError(f"{folder / name} is not {reached.offset} bytes long")
    for path in folder.rglob("*"):
        if path.is_file() and path.name != MASTER_FILE and path not in kept:
            path.unlink()


def _empty(part: Path) -> None:
    """Removes everything but the lock; the journal first, without which nothing counts."""
    for path in sorted(part.iterdir(), key=lambda path: path.name != JOURNAL_FILE):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.name != _LOCK:
            path.unlink()


def _remove(part: Path) -> None:
    _empty(part)
    (part / _LOCK).unlink()
    with suppress(OSError):  # the next process is in already
        part.rmdir()


def _digest(keys: Keys) -> str:
    return hashlib.sha256(keys.master).hexdigest()


def _size(size_bytes: int) -> str:
    return f"{size_bytes / 1e9:,.2f} GB" if size_bytes >= 1e9 else f"{size_bytes / 1e6:,.0f} MB"
