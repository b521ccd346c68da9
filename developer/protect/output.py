"""Files out: tensor files written piece by piece, and a folder that is whole or absent."""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from triparty.common.errors import StateError
from triparty.common.files import atomic_file, sync_folder, write_atomic
from triparty.common.tensorfile import TensorEntry, header_bytes

Pieces = Callable[[], Iterator[NDArray[Any]]]


@dataclass(frozen=True)
class Made:
    """A tensor to be written.

    Attributes:
        entry: its dtype and shape.
        pieces: makes its bytes as consecutive arrays.
    """

    entry: TensorEntry
    pieces: Pieces


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


def write_tensors(path: Path, tensors: Mapping[str, Made]) -> None:
    """Writes a safetensors file, one piece of one tensor in memory at a time.

    Args:
        path: the file.
        tensors: by name; written widest elements first, so that every one is aligned.
    """
    ordered = sorted(tensors.items(), key=lambda item: (-item[1].entry.bits.itemsize, item[0]))
    with atomic_file(path) as stream:
        stream.write(header_bytes({name: made.entry for name, made in ordered}))
        for _, made in ordered:
            for piece in made.pieces():
                stream.write(np.ascontiguousarray(piece).data)


def write_arrays(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Writes arrays in memory to a safetensors file."""
    write_tensors(path, {name: _made(array) for name, array in arrays.items()})


def _made(array: NDArray[Any]) -> Made:
    dtype = {"<i4": "I32", "<f4": "F32", "<f8": "F64"}[array.dtype.newbyteorder("<").str]
    return Made(TensorEntry(dtype, array.shape, 0), lambda: iter([array]))


def json_bytes(document: Mapping[str, Any]) -> bytes:
    """A JSON file for people and programs."""
    text = json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False)
    return text.encode() + b"\n"


def write_json(path: Path, document: Mapping[str, Any]) -> None:
    """Writes a JSON file, whole or not at all."""
    write_atomic(path, json_bytes(document))
