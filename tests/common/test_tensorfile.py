"""Tensor files: the safetensors library and ours read each other; bad headers are refused."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from triparty.common.errors import FileTypeError
from triparty.common.tensorfile import TensorEntry, TensorFile, header_bytes


def file_of(path: Path, header: Any, data: bytes = b"") -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def entry(dtype: str, shape: list[int], start: int, end: int) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


def test_reads_what_the_library_writes(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    rng = np.random.default_rng(0)
    tensors: dict[str, np.ndarray] = {
        "f32": rng.normal(size=(3, 5)).astype(np.float32),
        "f16": rng.normal(size=7).astype(np.float16),
        "scalar": np.array(2.5, np.float32),
        "empty": np.zeros((0, 4), np.float32),
        "bool": np.array([True, False]),
    }
    save_file(tensors, tmp_path / "a.safetensors", metadata={"x": "y"})
    file = TensorFile.open(tmp_path / "a.safetensors")
    assert set(file.entries) == set(tensors)
    for name, tensor in tensors.items():
        assert file.bits(name).tobytes() == tensor.tobytes()
        assert file.bits(name).shape == tensor.shape
    assert (file.floats("f16") == tensors["f16"]).all()
    with pytest.raises(ValueError, match="read-only"):
        file.bits("f32")[0, 0] = 1


def test_the_library_reads_what_we_write(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    entries = {"a": TensorEntry("F32", (2,), 0), "b": TensorEntry("BF16", (2, 1), 0)}
    data = np.array([1.5, -2], "<f4").tobytes() + np.array([0x3F80, 0xC000], "<u2").tobytes()
    path = tmp_path / "a.safetensors"
    path.write_bytes(header_bytes(entries) + data)
    tensors = load_file(path)
    assert tensors["a"].tolist() == [1.5, -2]
    assert tensors["b"].tolist() == [[1], [-2]]
    assert TensorFile.open(path).floats("b").tolist() == [[1], [-2]]


@pytest.mark.parametrize(
    ("header", "data", "named"),
    [
        (b"{", b"", "not JSON"),
        (b"[" * 100_000, b"", "not JSON"),
        (b"[]", b"", "not a JSON object"),
        (b'{"a": 1}', b"", "malformed"),
        (b'{"a": {"dtype": "F32", "shape": [1]}}', b"", "malformed"),
        ({"a": entry("F99", [1], 0, 4)}, bytes(4), "unknown dtype"),
        ({"a": entry("F32", [-1], 0, 4)}, bytes(4), "shape"),
        ({"a": entry("F32", [True], 0, 4)}, bytes(4), "shape"),
        ({"a": entry("F32", [2], 0, 4)}, bytes(4), "spans 4 bytes, not 8"),
        ({"a": entry("F32", [2**40, 2**40], 0, 4)}, bytes(4), "spans 4 bytes"),
        ({"a": entry("F32", [1], 4, 8)}, bytes(8), "begins at byte 4"),
        ({"a": entry("F32", [1], 0, 4), "b": entry("F32", [1], 0, 4)}, bytes(4), "begins"),
        ({"a": entry("F32", [1], 0, 4)}, bytes(8), "the file 8"),
        ({"a": entry("F32", [2], 0, 8)}, bytes(4), "the file 4"),
        (
            b'{"a": {"dtype":"U8","shape":[0],"data_offsets":[0,0]},'
            b'"a": {"dtype":"U8","shape":[0],"data_offsets":[0,0]}}',
            b"",
            "twice",
        ),
    ],
)
def test_broken_headers_are_refused(
    header: Any, data: bytes, named: str, tmp_path: Path
) -> None:
    path = file_of(tmp_path / "a.safetensors", header, data)
    with pytest.raises(FileTypeError, match=named):
        TensorFile.open(path)


@pytest.mark.parametrize("data", [b"", b"abc", struct.pack("<Q", 2**63), bytes(7)])
def test_files_shorter_than_their_header_are_refused(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(data)
    with pytest.raises(FileTypeError, match="does not fit"):
        TensorFile.open(path)
    with pytest.raises(FileTypeError, match="cannot read"):
        TensorFile.open(tmp_path / "absent.safetensors")


def _is_json_object(text: bytes) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except ValueError:
        return False


@given(data=st.binary(max_size=200))
def test_noise_is_refused_and_never_crashes(
    data: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    header = data[:60]
    assume(not _is_json_object(header))  # "{}" heads a whole file that holds no tensor
    path = tmp_path_factory.mktemp("noise") / "a.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + data)
    with pytest.raises(FileTypeError):
        TensorFile.open(path)
