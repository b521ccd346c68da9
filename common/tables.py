"""Data sets on disk as columns: npz files, Parquet files, folders of npy files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from triparty.common.datasets import Limits, read_columns
from triparty.common.errors import DatasetError, SettingsError

Table = Mapping[str, Any]
_LONG_FORM_BYTES: Final = 1 << 32  # of archives whose directory has another form
_ANY: Final = Limits(rows=1 << 40, bytes=1 << 42)
_NO_PARQUET: Final = "reading Parquet needs pyarrow: pip install pyarrow"


def read_table(path: Path) -> dict[str, Any]:
    """The columns of a data set: arrays with a row an input, or lists of texts.

    Args:
        path: `.npz`, `.parquet`, a folder of `.npy` files, one a column, or a folder of `.npz`
            files, which are parts and put together by name. Pickled objects are refused.

    Raises:
        DatasetError: a file that cannot be read, or columns of different lengths.
        SettingsError: another kind of file, or pyarrow is not installed.
    """
    if path.is_dir():
        parts = sorted(path.glob("*.npz"))
        columns = _joined(parts) if parts else _folder(path)
    elif path.suffix == ".npz":
        columns = _archive(path)
    elif path.suffix == ".parquet":
        columns = _parquet(path)
    else:
        raise SettingsError(
            f"{path}: expected .npz, .parquet, a folder of .npy or of .npz files"
        )
    lengths = {len(column) for column in columns.values()}
    if not columns or len(lengths) > 1:
        told = ", ".join(f"{name}: {len(column)}" for name, column in columns.items())
        raise DatasetError(f"{path}: expected columns of one length, got {told or 'none'}")
    return columns


def _array(path: Path) -> NDArray[Any]:
    try:
        found: NDArray[Any] = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise DatasetError(f"{path} cannot be read: {error}") from error
    return _rows(path, path.stem, found)


def _folder(path: Path) -> dict[str, Any]:
    return {file.stem: _array(file) for file in sorted(path.glob("*.npy"))}


def _joined(parts: Sequence[Path]) -> dict[str, Any]:
    found = [_archive(part) for part in parts]
    for part, columns in zip(parts, found, strict=True):
        for name in columns.keys() ^ found[0].keys():
            raise DatasetError(f"{part} and {parts[0]} do not both have a column '{name}'")
        for name, column in columns.items():
            if column.shape[1:] != found[0][name].shape[1:]:
                raise DatasetError(
                    f"{part}: '{name}' has rows of shape {column.shape[1:]}, in {parts[0]} "
                    f"they have {found[0][name].shape[1:]}"
                )
    return {name: np.concatenate([one[name] for one in found]) for name in found[0]}


def _archive(path: Path) -> dict[str, Any]:
    import zipfile

    if path.is_file() and path.stat().st_size < _LONG_FORM_BYTES:
        read_columns(path, _ANY)  # before an array is made
    try:
        with path.open("rb") as stream:
            archive = np.load(stream, allow_pickle=False)
            if isinstance(archive, np.ndarray):
                raise DatasetError(f"{path} is a single array: expected columns by name")
            found = {name: archive[name] for name in archive.files}
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise DatasetError(f"{path} cannot be read: {error}") from error
    return {name: _rows(path, name, column) for name, column in found.items()}


def _rows(path: Path, name: str, column: NDArray[Any]) -> NDArray[Any]:
    if column.ndim == 0:
        raise DatasetError(f"{path}: '{name}' is a single number, not a row an input")
    return column


def _parquet(path: Path) -> dict[str, Any]:
    try:
        from pyarrow import ArrowException, parquet
    except ImportError as error:
        raise SettingsError(_NO_PARQUET) from error
    try:
        table = parquet.read_table(path)
    except (OSError, ArrowException) as error:
        raise DatasetError(f"{path} cannot be read: {error}") from error
    return {name: _values(name, table[name].to_pylist()) for name in table.column_names}


def _values(name: str, rows: list[Any]) -> Any:
    """Texts as they are, numbers and lists of numbers as an array."""
    if any(isinstance(row, str) for row in rows):
        return rows
    for number, row in enumerate(rows):
        if row is None:
            raise DatasetError(f"row {number} of '{name}' is empty")
    try:
        return np.array(rows)
    except ValueError as error:
        raise DatasetError(f"'{name}' has rows of different lengths") from error
