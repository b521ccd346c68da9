"""Data sets on their way to a training: one npz file, read so that nothing in it is believed.

An npz file is a zip archive of npy files (numpy.lib.format). What it declares is compared with
what it holds, with itself and with limits before an array is made: a header can name 2^40
rows, a zip entry can unpack to more than a disk holds, and an array of objects is a pickle,
which runs code when it is read. Values are looked at a piece at a time.

The file of a data set has for each input a column `input.NAME` (n, ...) float32, or int64 for
text; `labels` (n, tasks) int64; and, if there are several inputs, `present` (n, inputs) uint8,
1 where an input is there. For `skip` a label is 1 where the model is needed, else 0; for
`reuse` equal numbers stand for equal results.
"""

from __future__ import annotations

import os
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import IO, Any, Final

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from triparty.common.errors import DatasetError, SizeError
from triparty.common.files import PRIVATE_MODE, atomic_file
from triparty.common.nets.design import MOST_INPUTS, Design
from triparty.common.nets.samples import Inputs, Samples

DATASET_FILE: Final = "data.npz"
LABELS: Final = "labels"
PRESENT: Final = "present"
MOST_LABELS: Final = 1 << 20
_INPUT: Final = "input."
_MOST_COLUMNS: Final = 256
_MOST_HEADER: Final = 10_000  # NumPy's own limit
_PIECE_BYTES: Final = 1 << 20
_MOST_DIRECTORY_BYTES: Final = 64 << 10
_END: Final = struct.Struct("<4s4H2LH")  # APPNOTE.TXT, section 4.3.16
_END_SIGNATURE: Final = b"PK\x05\x06"
_LOCATOR: Final = b"PK\x06\x07"
_LOCATOR_BYTES: Final = 20
_PICKLED: Final = (
    "rows are Python objects, which are pickled: save numbers, as in np.savez(...)"
)


@dataclass(frozen=True)
class Limits:
    """How much a data set may have.

    Attributes:
        rows: samples.
        bytes: of all columns, unpacked.
    """

    rows: int
    bytes: int


@dataclass(frozen=True)
class Column:
    """A column as its header declares it.

    Attributes:
        name: of the column.
        dtype: of its numbers.
        shape: (n, ...).
        is_fortran: whether its first axis runs fastest.
    """

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    is_fortran: bool

    @property
    def bytes(self) -> int:
        """That it unpacks to."""
        return prod(self.shape) * self.dtype.itemsize


def write_dataset(path: Path, samples: Samples) -> None:
    """Writes samples, whole or not at all, for their owner alone.

    Args:
        path: of the file.
        samples: as `check_samples` returns them.
    """
    columns: dict[str, NDArray[Any]] = {
        f"{_INPUT}{name}": column for name, column in samples.inputs.columns.items()
    }
    if len(columns) > 1:
        columns[PRESENT] = samples.inputs.present.astype(np.uint8)
    columns[LABELS] = samples.labels
    with (
        atomic_file(path, mode=PRIVATE_MODE) as stream,
        zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive,
    ):
        for name, column in columns.items():
            entry = zipfile.ZipInfo(f"{name}.npy")  # without a time: the same bytes again
            with archive.open(entry, "w", force_zip64=True) as sink:
                npy.write_array(sink, np.ascontiguousarray(column), allow_pickle=False)


def read_columns(path: Path, limits: Limits) -> tuple[Column, ...]:
    """What the headers of an npz file declare; no array is made.

    Raises:
        DatasetError: no npz file, a pickle, or headers that contradict the file.
        SizeError: more than the limits.
    """
    with _archive(path) as archive:
        entries = archive.infolist()
        if len(entries) > _MOST_COLUMNS:
            raise SizeError(f"{len(entries)} columns: expected at most {_MOST_COLUMNS}")
        columns = tuple(_declared(archive, entry) for entry in entries)
    names = [column.name for column in columns]
    if len(set(names)) < len(names):
        raise DatasetError(f"a column is there twice: {', '.join(sorted(names)):.200}")
    for column in columns:
        if column.shape and column.shape[0] > limits.rows:
            raise SizeError(
                f"'{column.name}' declares {column.shape[0]} rows: at most {limits.rows} are "
                "taken; send a sample of them"
            )
    if (total := sum(column.bytes for column in columns)) > limits.bytes:
        raise SizeError(
            f"the columns unpack to {total} bytes: at most {limits.bytes} are taken; send a "
            "sample of the rows, or features"
        )
    return columns


def read_arrays(path: Path, limits: Limits) -> dict[str, NDArray[Any]]:
    """The arrays of an npz file, after its headers were checked.

    Raises:
        DatasetError, SizeError: as `read_columns`; or an entry that ends too early.
    """
    columns = read_columns(path, limits)
    with _archive(path) as archive:
        return {column.name: _array(archive, column) for column in columns}


def check_dataset(path: Path, design: Design, limits: Limits) -> int:
    """How many rows a data set has that a training of a design can learn from.

    Headers are checked first; values then, a piece at a time, in bounded memory.

    Args:
        path: of the file.
        design: of the network.
        limits: how much it may have.

    Raises:
        DatasetError: other columns than the design's, shapes or types that differ, lengths
            that differ, numbers that are not finite, labels that cannot be, or one class
            alone; names the row where there is one.
        SizeError: more than the limits.
    """
    columns = {column.name: column for column in read_columns(path, limits)}
    rows = _check_columns(columns, design)
    texts = {f"{_INPUT}{one.name}" for one in design.inputs if one.modality == "text"}
    vocabulary = {f"{_INPUT}{one.name}": one.vocabulary for one in design.inputs}
    with _archive(path) as archive:
        for name, column in columns.items():
            classes: list[set[int]] = [set() for _ in range(design.tasks)]
            for first, piece in _pieces(archive, column):
                if name == LABELS:
                    _check_labels(first, piece, classes, design)
                elif name == PRESENT:
                    _check_present(first, piece)
                elif name in texts:
                    _check_tokens(name, first, piece, vocabulary[name])
                else:
                    _check_finite(name, first, piece)
            if name == LABELS:
                _check_classes(classes, rows)
    return rows


def read_samples(path: Path, design: Design, limits: Limits) -> Samples:
    """The samples of a data set that `check_dataset` passes.

    Raises:
        DatasetError, SizeError: as `read_arrays`, or other columns than the design's.
    """
    _check_columns({one.name: one for one in read_columns(path, limits)}, design)
    arrays = read_arrays(path, limits)
    inputs = {one.name: arrays[f"{_INPUT}{one.name}"] for one in design.inputs}
    labels = arrays[LABELS]
    there = arrays.get(PRESENT, np.ones((len(labels), len(inputs)), np.uint8))
    return Samples(Inputs(inputs, there.astype(np.bool_)), labels)


def _check_columns(columns: Mapping[str, Column], design: Design) -> int:
    """Compares headers with a design; how many rows there are."""
    expected: dict[str, tuple[np.dtype[Any], tuple[int, ...]]] = {
        f"{_INPUT}{one.name}": (one.dtype, one.shape) for one in design.inputs
    }
    if len(design.inputs) > 1:
        expected[PRESENT] = (np.dtype(np.uint8), (len(design.inputs),))
    expected[LABELS] = (np.dtype(np.int64), (design.tasks,))
    if set(columns) != set(expected):
        raise DatasetError(
            f"expected the columns {', '.join(expected):.400}, got {', '.join(columns):.400}"
        )
    lengths: dict[str, int] = {}
    for name, (dtype, shape) in expected.items():
        column = columns[name]
        if not column.shape or column.dtype != dtype or column.shape[1:] != shape:
            raise DatasetError(
                f"'{name}' has rows of type {column.dtype} and shape {column.shape[1:]}: "
                f"expected {dtype} and {shape}"
            )
        lengths[name] = column.shape[0]
    if len(set(lengths.values())) > 1:
        told = ", ".join(f"{length} of '{name}'" for name, length in lengths.items())
        raise DatasetError(f"columns have different lengths: {told:.400}")
    rows = lengths[LABELS]
    if not rows:
        raise DatasetError("the data set has no rows")
    return rows


def _check_finite(name: str, first: int, piece: NDArray[Any]) -> None:
    good = np.isfinite(piece.reshape(len(piece), -1)).all(1)
    if not good.all():
        raise DatasetError(
            f"row {first + int(good.argmin())} of '{name}' holds a number that is not finite: "
            "leave the row out, or put a number there"
        )


def _check_tokens(name: str, first: int, piece: NDArray[Any], vocabulary: int) -> None:
    good = ((piece >= 0) & (piece < vocabulary)).reshape(len(piece), -1).all(1)
    if not good.all():
        raise DatasetError(
            f"row {first + int(good.argmin())} of '{name}' holds a token that is none of "
            f"0 to {vocabulary - 1}"
        )


def _check_present(first: int, piece: NDArray[Any]) -> None:
    good = (piece <= 1).all(1) & (piece == 1).any(1)
    if not good.all():
        raise DatasetError(
            f"row {first + int(good.argmin())} of '{PRESENT}': expected 0 and 1, and 1 at "
            "least once"
        )


def _check_labels(
    first: int, piece: NDArray[Any], classes: list[set[int]], design: Design
) -> None:
    most = 2 if design.kind == "skip" else MOST_LABELS
    good = ((piece >= 0) & (piece < most)).all(1)
    if not good.all():
        row = int(good.argmin())
        raise DatasetError(
            f"row {first + row} of '{LABELS}' is {piece[row].tolist()!s:.80}: expected 0 to "
            f"{most - 1}"
        )
    for seen, column in zip(classes, piece.T, strict=True):
        if len(seen) < 2:
            seen.update(np.unique(column)[:2].tolist())


def _check_classes(classes: list[set[int]], rows: int) -> None:
    for task, seen in enumerate(classes):
        if len(seen) < 2:
            raise DatasetError(
                f"task {task} has the label {min(seen)} in all {rows} rows, from row 0 on: at "
                "least two different ones are needed; add rows of another"
            )


@contextmanager
def _archive(path: Path) -> Iterator[zipfile.ZipFile]:
    """An npz file opened; what zip and NumPy can raise becomes a `DatasetError`."""
    try:
        _check_directory(path)
        with zipfile.ZipFile(path) as archive:
            yield archive
    except zipfile.BadZipFile as error:
        raise DatasetError(f"{_what(path)}: expected an npz file ({error})") from error
    except (EOFError, zlib.error, NotImplementedError, RuntimeError) as error:
        raise DatasetError(f"the npz file cannot be unpacked: {error}") from error
    except OSError as error:
        raise DatasetError(f"the npz file cannot be read: {error}") from error


def _check_directory(path: Path) -> None:
    """Returns only if the list of an archive's entries is small: zipfile reads all of it.

    The end of the archive must be plain: no comment, and none of the larger form, which files
    of 4 GiB have.
    """
    with path.open("rb") as stream:
        size = stream.seek(0, os.SEEK_END)
        stream.seek(max(0, size - _LOCATOR_BYTES - _END.size))
        end = stream.read()
    is_plain = len(end) >= _END.size and not end.startswith(_LOCATOR)
    signature, *_, length, _, comment = (
        _END.unpack(end[-_END.size :])
        if is_plain
        else (
            b"",
            0,
            0,
            0,
        )
    )
    if signature != _END_SIGNATURE or comment:
        raise zipfile.BadZipFile("it does not end like one that np.savez wrote")
    if length > _MOST_DIRECTORY_BYTES:
        raise SizeError(f"the archive lists {length} bytes of names: it has too many entries")


def _what(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            start = stream.read(2)
    except OSError:
        return "no file"
    is_pickle = start[:1] == b"\x80" and start[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05")
    return "a pickle, which runs code when it is read" if is_pickle else "no archive"


def _declared(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> Column:
    name = entry.filename.removesuffix(".npy")
    if name == entry.filename or not name.isprintable() or not 1 <= len(name) <= 128:
        raise DatasetError(
            f"the archive holds {entry.filename!r:.80}: expected npy files alone"
        )
    if entry.flag_bits & 1 or entry.compress_type not in (
        zipfile.ZIP_STORED,
        zipfile.ZIP_DEFLATED,
    ):
        raise DatasetError(f"'{name}' is packed as np.savez does not pack: save it with that")
    with archive.open(entry) as stream:
        shape, is_fortran, dtype, header = _read_header(name, stream)
    if dtype.hasobject:
        raise DatasetError(f"'{name}': {_PICKLED}")
    column = Column(name, dtype, shape, is_fortran)
    if column.bytes + header != entry.file_size:
        raise DatasetError(
            f"'{name}' declares {shape[0] if shape else 1} rows of {dtype}, {column.bytes} "
            f"bytes in all, and holds {entry.file_size - header}"
        )
    return column


def _read_header(
    name: str, stream: IO[bytes]
) -> tuple[tuple[int, ...], bool, np.dtype[Any], int]:
    """Shape, order, type, and the bytes of an npy header."""
    try:
        version = npy.read_magic(stream)
        read = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}[version]
        shape, is_fortran, dtype = read(stream, max_header_size=_MOST_HEADER)
    except KeyError as error:
        raise DatasetError(f"'{name}' is an npy file of a version nobody writes") from error
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError) as error:
        raise DatasetError(f"'{name}' is no npy file: {error}"[:300]) from error
    if any(side < 0 for side in shape) or len(shape) > MOST_INPUTS:
        raise DatasetError(f"'{name}' declares the shape {shape}"[:300])
    return shape, is_fortran, dtype, stream.tell()


def _array(archive: zipfile.ZipFile, column: Column) -> NDArray[Any]:
    """The array of a column whose header was checked: exactly as many bytes as it takes."""
    with archive.open(f"{column.name}.npy") as stream:
        _read_header(column.name, stream)
        data = stream.read(column.bytes)
    if len(data) != column.bytes:
        raise DatasetError(f"'{column.name}' ends after {len(data)} of {column.bytes} bytes")
    flat = np.frombuffer(data, column.dtype)
    order: Any = "F" if column.is_fortran else "C"
    return flat.reshape(column.shape, order=order)


def _pieces(archive: zipfile.ZipFile, column: Column) -> Iterator[tuple[int, NDArray[Any]]]:
    """The rows of a column, some at a time, each with the number of the first."""
    if column.is_fortran and len(column.shape) > 1:
        raise DatasetError(f"'{column.name}' is stored by columns: save it in C order")
    row_bytes = column.bytes // column.shape[0]
    most = max(1, _PIECE_BYTES // max(1, row_bytes))
    with archive.open(f"{column.name}.npy") as stream:
        _read_header(column.name, stream)
        for first in range(0, column.shape[0], most):
            rows = min(most, column.shape[0] - first)
            data = stream.read(rows * row_bytes)
            if len(data) != rows * row_bytes:
                raise DatasetError(f"'{column.name}' ends before row {first + rows}")
            yield first, np.frombuffer(data, column.dtype).reshape(rows, *column.shape[1:])
        if stream.read(1):  # to the end, so that the archive's checksum is compared
            raise DatasetError(f"'{column.name}' goes on after its last row")
