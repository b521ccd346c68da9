"""Tensor files (safetensors), read through a memory map and without torch.

A file is a length u64, a JSON header and the tensors' bytes, little-endian
(https://github.com/huggingface/safetensors#format). A header is input from somebody else: its
length, the offsets and the shapes are compared with each other and with the file's size
before a tensor is touched.

Elements are handed out as bit patterns (`uint16` for F16 and BF16, `uint32` for F32), because
keys move weights and never compute with them, and because NumPy has no bfloat16.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from triparty.common.errors import FileTypeError
from triparty.common.wire import bfloat16_to_float32

MAX_HEADER_BYTES = 100_000_000  # the limit of the safetensors library itself
_LENGTH = struct.Struct("<Q")
_BITS: dict[str, np.dtype[Any]] = {
    "F64": np.dtype("<u8"),
    "F32": np.dtype("<u4"),
    "F16": np.dtype("<u2"),
    "BF16": np.dtype("<u2"),
    "I64": np.dtype("<u8"),
    "I32": np.dtype("<u4"),
    "I16": np.dtype("<u2"),
    "I8": np.dtype("u1"),
    "U8": np.dtype("u1"),
    "BOOL": np.dtype("u1"),
    "F8_E4M3": np.dtype("u1"),
    "F8_E5M2": np.dtype("u1"),
}


@dataclass(frozen=True)
class TensorEntry:
    """One tensor of a file: element type as the format names it, shape, place in the file."""

    dtype: str
    shape: tuple[int, ...]
    offset: int

    @property
    def bits(self) -> np.dtype[Any]:
        """The unsigned dtype of the elements' bit patterns."""
        return _BITS[self.dtype]

    @property
    def size_bytes(self) -> int:
        """Bytes that the tensor takes."""
        return prod(self.shape) * self.bits.itemsize


@dataclass(frozen=True)
class TensorFile:
    """A safetensors file whose header has been checked.

    Attributes:
        path: the file.
        entries: its tensors by name, in the order of their bytes.
    """

    path: Path
    entries: Mapping[str, TensorEntry]

    @classmethod
    def open(cls, path: Path) -> TensorFile:
        """Reads and checks the header.

        Raises:
            FileTypeError: not a safetensors file, or one that contradicts itself.
        """
        try:
            size = path.stat().st_size
            with path.open("rb") as stream:
                prefix = stream.read(_LENGTH.size)
                length = _LENGTH.unpack(prefix)[0] if len(prefix) == _LENGTH.size else size
                if length > min(MAX_HEADER_BYTES, size - _LENGTH.size):
                    raise _broken(path, "its header does not fit into the file")
                text = stream.read(length)
        except OSError as error:
            raise FileTypeError(f"cannot read {path}: {error.strerror}") from error
        start = _LENGTH.size + length
        return cls(path, _entries(path, _parse(path, text), start, size))

    def bits(self, name: str) -> NDArray[Any]:
        """The bit patterns of a tensor, a read-only view of the memory-mapped file."""
        entry = self.entries[name]
        if not prod(entry.shape):
            return np.empty(entry.shape, entry.bits)
        mapped: NDArray[Any] = np.memmap(
            self.path, entry.bits, mode="r", offset=entry.offset, shape=entry.shape
        )
        return mapped

    def floats(self, name: str) -> NDArray[np.float32]:
        """The values of an F32, F16 or BF16 tensor, in memory."""
        return as_float32(self.bits(name), self.entries[name].dtype)


def as_float32(bits: NDArray[Any], dtype: str) -> NDArray[np.float32]:
    """The values behind bit patterns of F32, F16 or BF16 elements; exact. F64 is rounded."""
    if dtype == "BF16":
        return bfloat16_to_float32(bits)
    storage = {"F64": "<f8", "F32": "<f4", "F16": "<f2"}[dtype]
    return np.ascontiguousarray(bits).view(storage).astype(np.float32)


def as_float64(bits: NDArray[Any], dtype: str) -> NDArray[np.float64]:
    """The values behind bit patterns of F64, F32, F16 or BF16 elements; exact."""
    if dtype == "F64":
        return np.ascontiguousarray(bits).view("<f8")
    return as_float32(bits, dtype).astype(np.float64)


def _broken(path: Path, why: str) -> FileTypeError:
    return FileTypeError(f"{path} is not a whole safetensors file: {why}")


def _parse(path: Path, text: bytes) -> dict[str, Any]:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len({name for name, _ in pairs}) != len(pairs):
            raise _broken(path, "its header names a tensor twice")
        return dict(pairs)

    try:
        header = json.loads(text, object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        raise _broken(path, "its header is not JSON") from error
    if not isinstance(header, dict):
        raise _broken(path, "its header is not a JSON object")
    header.pop("__metadata__", None)
    return header


def _entries(
    path: Path, header: Mapping[str, Any], start: int, size: int
) -> dict[str, TensorEntry]:
    spans: list[tuple[int, int, str, TensorEntry]] = []
    for name, given in header.items():
        match given:
            case {"dtype": str(dtype), "shape": list(shape), "data_offsets": [int(a), int(b)]}:
                pass
            case _:
                raise _broken(path, f"the entry of {name!r} is malformed")
        if dtype not in _BITS:
            raise _broken(path, f"{name!r} has the unknown dtype {dtype!r}")
        if not all(type(n) is int and n >= 0 for n in shape):
            raise _broken(path, f"{name!r} has the shape {shape}")
        entry = TensorEntry(dtype, tuple(shape), start + a)
        if b - a != entry.size_bytes:
            raise _broken(path, f"{name!r} spans {b - a} bytes, not {entry.size_bytes}")
        spans.append((a, b, name, entry))
    spans.sort(key=lambda span: span[:2])
    end = 0
    for a, b, name, _ in spans:
        if a != end:
            raise _broken(path, f"{name!r} begins at byte {a}, expected {end}")
        end = b
    if end != size - start:
        raise _broken(path, f"its tensors have {end} bytes, the file {size - start}")
    return {name: entry for _, _, name, entry in spans}


def header_bytes(entries: Mapping[str, TensorEntry]) -> bytes:
    """The beginning of a file that will hold tensors of these dtypes and shapes in order."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    at = 0
    for name, entry in entries.items():
        end = at + entry.size_bytes
        header[name] = {
            "dtype": entry.dtype,
            "shape": list(entry.shape),
            "data_offsets": [at, end],
        }
        at = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return _LENGTH.pack(len(text)) + text


def float_bytes(weights: Mapping[str, NDArray[Any]]) -> bytes:
    """A whole file that holds these weights as F32, in their order; for small models."""
    entries = {name: TensorEntry("F32", weight.shape, 0) for name, weight in weights.items()}
    parts = (np.ascontiguousarray(weight, "<f4").tobytes() for weight in weights.values())
    return header_bytes(entries) + b"".join(parts)


def read_floats(path: Path, *, limit_bytes: int) -> dict[str, NDArray[np.float32]]:
    """The weights of a file that `float_bytes` made, in memory.

    Args:
        path: the file.
        limit_bytes: of the file; a larger one is not opened.

    Raises:
        FileTypeError: no whole file of F32 tensors, or one beyond the limit.
    """
    try:
        size = path.stat().st_size
    except OSError as error:
        raise FileTypeError(f"cannot read {path}: {error.strerror}") from error
    if size > limit_bytes:
        raise FileTypeError(f"{path} has {size} bytes, limit {limit_bytes}")
    file = TensorFile.open(path)
    for name, entry in file.entries.items():
        if entry.dtype != "F32":
            raise FileTypeError(f"{path}: '{name:.80}' is {entry.dtype}, expected F32")
    return {name: np.array(file.floats(name)) for name in file.entries}
