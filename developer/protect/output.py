"""Files out: tensor files written piece by piece, and a folder that is whole or absent.

A tensor file of many gigabytes may be cut off while it is written: from time to time what is
there is made durable and recorded (`Reached`), and a later run goes on from there.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from triparty.common.errors import StateError
from triparty.common.files import sync_folder, write_atomic
from triparty.common.tensorfile import TensorEntry, header_bytes

Pieces = Callable[[], Iterator[NDArray[Any]]]

RECORD_BYTES = 256 << 20
"""After how many bytes of whole tensors a file is made durable: what a killed run loses."""


@dataclass(frozen=True)
class Made:
    """A tensor to be written.

    Attributes:
        entry: its dtype and shape.
        pieces: makes its bytes as consecutive arrays.
    """

    entry: TensorEntry
    pieces: Pieces


@dataclass(frozen=True)
class Reached:
    """How far a tensor file is written.

    Attributes:
        tensors: how many of them are whole, in the order of the file.
        offset: bytes of the file up to there.
    """

    tensors: int
    offset: int


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """A temporary folder that is renamed to `target` when the block ends without an error.

    Raises:
        StateError: `target` exists.
    """
    check_absent(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.parent / f".{target.name}.{secrets.token_hex(8)}.part"
    temporary.mkdir()
    try:
        yield temporary
        sync_folder(temporary)
        check_absent(target)
        os.rename(temporary, target)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    sync_folder(target.parent)


def check_absent(target: Path) -> None:
    """Refuses to write over something.

    Raises:
        StateError: `target` exists.
    """
    if target.exists() or target.is_symlink():
        raise StateError(
            f"{target} exists already; name another folder or remove it first (its "
            f"secrets/master.key cannot be made again)"
        )


def write_tensors(
    path: Path,
    tensors: Mapping[str, Made],
    *,
    reached: Reached | None = None,
    record: Callable[[Reached], None] = lambda reached: None,
) -> Reached:
    """Writes a safetensors file, one piece of one tensor in memory at a time.

    Args:
        path: the file; partly written if `reached` says so.
        tensors: by name; written widest elements first, so that every one is aligned.
        reached: where to go on; None begins anew.
        record: told from time to time how much of the file is durable.

    Returns:
        The end of the file, all of it durable.

    Raises:
        StateError: the file is not the beginning of this one.
    """
    ordered = sorted(tensors.items(), key=lambda item: (-item[1].entry.bits.itemsize, item[0]))
    header = header_bytes({name: made.entry for name, made in ordered})
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    with os.fdopen(descriptor, "r+b") as stream:
        if reached is None:
            stream.truncate(0)
            stream.write(header)
            reached = Reached(0, len(header))
        elif (
            os.fstat(descriptor).st_size < reached.offset or stream.read(len(header)) != header
        ):
            raise StateError(f"{path} is not what was written so far")
        stream.truncate(reached.offset)
        stream.seek(reached.offset)
        durable = reached.offset
        for name, made in ordered[reached.tensors :]:
            for piece in made.pieces():
                stream.write(np.ascontiguousarray(piece).data)
            reached = Reached(reached.tensors + 1, reached.offset + made.entry.size_bytes)
            if stream.tell() != reached.offset:
                raise ValueError(f"{name!r} is not {made.entry.size_bytes} bytes long")
            if reached.offset - durable >= RECORD_BYTES:
                _sync(stream)
                record(reached)
                durable = reached.offset
        _sync(stream)
    sync_folder(path.parent)
    return reached


def write_arrays(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Writes arrays in memory to a safetensors file, whole or not at all."""
    ordered = sorted(arrays.items(), key=lambda item: (-item[1].itemsize, item[0]))
    entries = {name: _entry(array) for name, array in ordered}
    parts = [header_bytes(entries), *(array.tobytes() for _, array in ordered)]
    write_atomic(path, b"".join(parts))


def _entry(array: NDArray[Any]) -> TensorEntry:
    dtype = {"<i4": "I32", "<f4": "F32", "<f8": "F64"}[array.dtype.newbyteorder("<").str]
    return TensorEntry(dtype, array.shape, 0)


def _sync(stream: BinaryIO) -> None:
    """Makes what was written so far durable."""
    stream.flush()
    os.fsync(stream.fileno())


def json_bytes(document: Mapping[str, Any]) -> bytes:
    """A JSON file for people and programs."""
    text = json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False)
    return text.encode() + b"\n"


def write_json(path: Path, document: Mapping[str, Any]) -> None:
    """Writes a JSON file, whole or not at all."""
    write_atomic(path, json_bytes(document))
