"""Files out: tensor files written piece by piece, and a folder that is whole or absent."""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from triparty.common.errors import StateError
from triparty.common.files import atomic_file, sync_folder, write_atomic
from triparty.common.tensorfile import TensorEntry, header_bytes

Pieces = Callable[[], Iterator[NDArray[Any]]]


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
    path: Path, entries: Mapping[str, TensorEntry], pieces: Mapping[str, Pieces]
) -> None:
    """Writes a safetensors file, one piece of one tensor in memory at a time.

    Args:
        path: the file.
        entries: dtype and shape by name; written widest elements first, so that every tensor
            is aligned.
        pieces: for each name, makes its bytes as consecutive arrays.
    """
    ordered = dict(sorted(entries.items(), key=lambda item: (-item[1].bits.itemsize, item[0])))
    with atomic_file(path) as stream:
        stream.write(header_bytes(ordered))
        for name in ordered:
            for piece in pieces[name]():
                stream.write(np.ascontiguousarray(piece).data)


def json_bytes(document: Mapping[str, Any]) -> bytes:
    """A JSON file for people and programs."""
    text = json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False)
    return text.encode() + b"\n"


def write_json(path: Path, document: Mapping[str, Any]) -> None:
    """Writes a JSON file, whole or not at all."""
    write_atomic(path, json_bytes(document))
