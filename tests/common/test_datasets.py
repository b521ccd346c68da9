"""Data sets are refused for what they declare before an array is made, and for their rows."""

from __future__ import annotations

import io
import pickle  # noqa: TID251 - what must be refused
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from triparty.common.datasets import (
    Limits,
    check_dataset,
    read_arrays,
    read_columns,
    read_samples,
    write_dataset,
)
from triparty.common.errors import DatasetError, SizeError, TripartyError
from triparty.common.nets.design import Design
from triparty.common.nets.inputs import InputSpec
from triparty.common.nets.samples import Inputs, Samples

POINT = InputSpec("point", "vector", (3,))
WORDS = InputSpec("words", "text", (2,), 50)
SKIP, BOTH = Design("skip", (POINT,)), Design("reuse", (POINT, WORDS), tasks=2)
LIMITS = Limits(rows=1000, bytes=1 << 20)
ROWS = 40


def good(**changes: Any) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    points = rng.normal(size=(ROWS, 3)).astype(np.float32)
    return {
        "input.point": points,
        "labels": (np.arange(ROWS) % 3 == 0).astype(np.int64)[:, None],
    } | changes


def saved(path: Path, columns: dict[str, Any]) -> Path:
    np.savez(path, **columns)
    return path


def test_samples_come_back_as_they_were_in_the_same_bytes(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    there = rng.random((ROWS, 2)) < 0.7
    there[:, 0] |= ~there.any(axis=1)
    columns = {
        "point": rng.normal(size=(ROWS, 3)).astype(np.float32),
        "words": rng.integers(0, 50, (ROWS, 2)),
    }
    samples = Samples(Inputs(columns, there), rng.integers(0, 4, (ROWS, 2)))
    for name in ("one.npz", "two.npz"):
        write_dataset(tmp_path / name, samples)
    assert (tmp_path / "one.npz").read_bytes() == (tmp_path / "two.npz").read_bytes()
    assert (tmp_path / "one.npz").stat().st_mode & 0o077 == 0
    assert check_dataset(tmp_path / "one.npz", BOTH, LIMITS) == ROWS
    back = read_samples(tmp_path / "one.npz", BOTH, LIMITS)
    np.testing.assert_array_equal(back.labels, samples.labels)
    np.testing.assert_array_equal(back.inputs.present, there)
    for name, column in columns.items():
        np.testing.assert_array_equal(back.inputs.columns[name], column)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_what_numpy_writes_is_taken(tmp_path: Path, save: Any) -> None:
    save(tmp_path / "d.npz", **good())
    assert check_dataset(tmp_path / "d.npz", SKIP, LIMITS) == ROWS
    np.testing.assert_array_equal(
        read_arrays(tmp_path / "d.npz", LIMITS)["input.point"], good()["input.point"]
    )


def put(row: int, value: float) -> dict[str, Any]:
    columns = good()
    columns["input.point"][row, 1] = value
    return columns


def label(row: Any, value: int) -> dict[str, Any]:
    columns = good()
    columns["labels"][row, 0] = value
    return columns


BAD: list[tuple[str, dict[str, Any], str]] = [
    ("not a number", put(17, np.nan), r"row 17 of 'input.point' .* not finite: leave the row"),
    ("infinite", put(39, -np.inf), r"row 39 of 'input.point'"),
    ("label", label(5, 2), r"row 5 of 'labels' is \[2\]"),
    ("one class", label(slice(None), 1), r"label 1 in all 40 rows, from row 0 on"),
    ("lengths", good(labels=good()["labels"][:-1]), r"40 of 'input.point', 39 of 'labels'"),
    ("shape", good(**{"input.point": np.zeros((ROWS, 4), np.float32)}), r"expected float32"),
    ("type", good(**{"input.point": np.zeros((ROWS, 3))}), r"type float64"),
    ("other names", {"x": np.zeros((ROWS, 3), np.float32)}, r"expected the columns input"),
    ("objects", good(labels=np.array([[None]] * ROWS, object)), r"pickled: save numbers"),
    ("no rows", {k: v[:0] for k, v in good().items()}, r"no rows"),
    ("by columns", good(**{"input.point": np.asfortranarray(good()["input.point"])}),
     r"save it in C order"),
]  # fmt: skip


@pytest.mark.parametrize(("columns", "message"), [b[1:] for b in BAD], ids=[b[0] for b in BAD])
def test_bad_rows_are_named_with_the_remedy(
    tmp_path: Path, columns: dict[str, Any], message: str
) -> None:
    with pytest.raises(DatasetError, match=message):
        check_dataset(saved(tmp_path / "d.npz", columns), SKIP, LIMITS)


def test_a_bad_row_is_named_however_far_behind_it_is(tmp_path: Path) -> None:
    """Rows are looked at in pieces; numbers count from the first of all."""
    many = np.zeros((300_000, 3), np.float32)
    many[299_998, 2] = np.nan
    columns = {"input.point": many, "labels": np.tile([[0], [1]], (150_000, 1))}
    path = saved(tmp_path / "d.npz", columns)
    with pytest.raises(DatasetError, match="row 299998"):
        check_dataset(path, SKIP, Limits(10**6, 1 << 30))


@pytest.mark.parametrize(
    ("words", "there", "message"),
    [(50, 1, r"row 7 of 'input\.words'"), (3, 2, "row 7 of 'present'"),
     (-1, 1, r"row 7 of 'input\.words'"), (3, 0, "row 7 of 'present'")],
)  # fmt: skip
def test_tokens_and_marks_are_checked(
    tmp_path: Path, words: int, there: int, message: str
) -> None:
    columns = {
        "input.point": np.zeros((ROWS, 3), np.float32),
        "input.words": np.zeros((ROWS, 2), np.int64),
        "present": np.ones((ROWS, 2), np.uint8),
        "labels": np.tile(np.arange(ROWS)[:, None] % 2, (1, 2)),
    }
    assert check_dataset(saved(tmp_path / "good.npz", columns), BOTH, LIMITS) == ROWS
    columns["input.words"][7, 1] = words
    columns["present"][7] = there
    with pytest.raises(DatasetError, match=message):
        check_dataset(saved(tmp_path / "d.npz", columns), BOTH, LIMITS)


def header(shape: str, descr: str = "'<f4'") -> bytes:
    text = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}".encode()
    text += b" " * (-(len(text) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


def archive(path: Path, entries: dict[str, bytes], packing: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", packing) as made:
        for name, data in entries.items():
            made.writestr(name, data)
    return path


HOSTILE: list[tuple[str, bytes, type[TripartyError], str]] = [
    ("2^40 rows", header(f"({2**40}, 3)"), SizeError, "declares 1099511627776 rows|contradict"),
    ("2^40 numbers a row", header(f"(4, {2**40})"), DatasetError, "holds 0"),
    ("2^70 rows", header(f"({2**70},)"), DatasetError, "declares"),
    ("negative", header("(-4, 3)"), DatasetError, "declares the shape"),
    ("objects", header("(4,)", "'|O'"), DatasetError, "pickled"),
    ("hidden objects", header("(4,)", "[('a', '|O')]"), DatasetError, "pickled"),
    ("code", header("(4,)", "__import__('os')"), DatasetError, "no npy file"),
    ("short", header("(4, 3)") + b"\x00" * 47, DatasetError, "48 bytes in all, and holds 47"),
    ("long", header("(4, 3)") + b"\x00" * 49, DatasetError, "holds 49"),
    ("no header", b"\x93NUMPY\x01\x00\xff\xff", DatasetError, "no npy file"),
    ("a pickle", pickle.dumps({"a": 1}), DatasetError, "no npy file"),
    ("a newer version", b"\x93NUMPY\x09\x00" + b" " * 60, DatasetError, "nobody writes"),
    ("deep", header("(" * 4000 + ")" * 4000), DatasetError, "no npy file"),
]


@pytest.mark.parametrize(
    ("data", "kind", "message"), [h[1:] for h in HOSTILE], ids=[h[0] for h in HOSTILE]
)
def test_what_contradicts_itself_is_refused_before_anything_is_allocated(
    tmp_path: Path, data: bytes, kind: type[TripartyError], message: str
) -> None:
    path = archive(tmp_path / "d.npz", {"x.npy": data})
    tracemalloc.start()
    with pytest.raises((kind, DatasetError), match=message):
        read_columns(path, LIMITS)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 << 20


def test_an_honest_2_to_the_40_rows_meet_the_limit(tmp_path: Path) -> None:
    """A column without numbers can have as many rows as it likes in no bytes at all."""
    path = archive(tmp_path / "d.npz", {"x.npy": header(f"({2**40}, 0)")})
    with pytest.raises(SizeError, match="declares 1099511627776 rows"):
        read_columns(path, LIMITS)


def test_a_column_that_unpacks_to_too_much_is_refused(tmp_path: Path) -> None:
    zeros = header("(900, 1000)") + bytes(900 * 4000)
    path = archive(tmp_path / "d.npz", {"x.npy": zeros}, zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 20_000
    with pytest.raises(SizeError, match="unpack to 3600000 bytes: at most 1048576"):
        read_columns(path, LIMITS)


def test_what_is_no_npz_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "d.npz"
    path.write_bytes(pickle.dumps({"x": [1, 2]}))
    with pytest.raises(DatasetError, match="a pickle, which runs code"):
        read_columns(path, LIMITS)
    for data in (b"", b"PK", bytes(100)):
        path.write_bytes(data)
        with pytest.raises(DatasetError, match="expected an npz file"):
            read_columns(path, LIMITS)
    with pytest.raises(DatasetError, match="expected npy files alone"):
        read_columns(archive(path, {"code.py": b"print()"}), LIMITS)
    with pytest.raises(DatasetError, match=r"as np\.savez does not pack"):
        read_columns(archive(path, {"x.npy": header("(0,)")}, zipfile.ZIP_LZMA), LIMITS)
    many = {f"{number}.npy": b"" for number in range(3000)}
    with pytest.raises(SizeError, match="too many entries"):
        read_columns(archive(path, many), LIMITS)
    whole = saved(tmp_path / "whole.npz", good()).read_bytes()
    for end in range(10, len(whole), 97):
        path.write_bytes(whole[:end])
        with pytest.raises(DatasetError):
            check_dataset(path, SKIP, LIMITS)


def test_bytes_that_changed_are_noticed(tmp_path: Path) -> None:
    """Wherever a bit flips: refused, or of no effect on what is read."""
    path = saved(tmp_path / "d.npz", good())
    whole, rng = path.read_bytes(), np.random.default_rng(3)
    expected = read_samples(path, SKIP, LIMITS)
    for place in rng.integers(0, len(whole), 150).tolist():
        changed = bytearray(whole)
        changed[place] ^= 1 << int(rng.integers(0, 8))
        path.write_bytes(bytes(changed))
        try:
            check_dataset(path, SKIP, LIMITS)
            found = read_samples(path, SKIP, LIMITS)
        except TripartyError:
            continue
        np.testing.assert_array_equal(found.labels, expected.labels)
        np.testing.assert_array_equal(
            found.inputs.columns["point"], expected.inputs.columns["point"]
        )


def test_a_column_twice_is_refused(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    np.save(buffer, np.zeros((2, 2)))
    path = tmp_path / "d.npz"
    with zipfile.ZipFile(path, "w") as made:
        made.writestr("x.npy", buffer.getvalue())
        with pytest.warns(UserWarning, match="Duplicate"):
            made.writestr("x.npy", buffer.getvalue())
    with pytest.raises(DatasetError, match="twice"):
        read_columns(path, LIMITS)
