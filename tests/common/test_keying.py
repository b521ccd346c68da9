"""What developer and device do with a bundle, and which bundles they refuse."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from triparty.common.deviceinfo import DeviceInfo
from triparty.common.errors import (
    CheckpointError,
    FileTypeError,
    FormatVersionError,
    RequestError,
)
from triparty.common.keying import Bundle, KeyedReply
from triparty.common.tensorfile import TensorEntry, header_bytes
from triparty.common.wire import DType, float32_to_bfloat16

INFO = DeviceInfo(
    family="gpt2",
    task="causal-lm",
    interface="embeddings",
    width=4,
    vocabulary=5,
    outputs=5,
    max_positions=6,
    positions=True,
    segments=0,
    image=None,
    dtype="float32",
    transport="float32",
    bos_id=0,
    eos_ids=(1, 2),
    pad_id=None,
    chat_template=None,
    replies=("logits", "topk", "id"),
    epoch=1,
)
RNG = np.random.default_rng(0)
ROWS = RNG.normal(size=(5, 4)).astype(np.float32)
POSITIONS = RNG.normal(size=(6, 4)).astype(np.float32)
ORDER = np.array([3, 0, 4, 1, 2], np.int32)


TOKENS = dataclasses.replace(INFO, interface="tokens", positions=False, replies=())


def write(path: Path, **tensors: np.ndarray) -> None:
    codes = {"float32": "F32", "float16": "F16", "uint16": "BF16", "int32": "I32"}
    entries = {n: TensorEntry(codes[t.dtype.name], t.shape, 0) for n, t in tensors.items()}
    data = b"".join(tensor.tobytes() for tensor in tensors.values())
    path.write_bytes(header_bytes(entries) + data)


def make(
    folder: Path,
    info: DeviceInfo = INFO,
    *,
    rows: np.ndarray = ROWS,
    positions: np.ndarray = POSITIONS,
    order: np.ndarray = ORDER,
) -> Path:
    folder.mkdir(exist_ok=True)
    if info.interface == "embeddings":
        tables = {"rows": rows, **({"positions": positions} if info.positions else {})}
        write(folder / "embedding.safetensors", **tables)
    write(folder / "head.safetensors", order=order)
    (folder / "device.json").write_bytes(info.to_json())
    return folder


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return Bundle.open(make(tmp_path / "device"))


def test_rows_are_looked_up_and_placed(bundle: Bundle) -> None:
    frame = bundle.rows(np.array([4, 0, 4]), start=2)
    assert frame.dtype is DType.F32
    assert (frame.array == ROWS[[4, 0, 4]] + POSITIONS[2:5]).all()
    assert bundle.rows(np.array([], np.int64), start=0).array.shape == (0, 4)


def test_rows_without_positions_are_the_tables(tmp_path: Path) -> None:
    for dtype, table in (
        ("float32", ROWS),
        ("float16", ROWS.astype(np.float16)),
        ("bfloat16", float32_to_bfloat16(ROWS)),
    ):
        info = dataclasses.replace(INFO, positions=False, dtype=dtype, transport=dtype)
        bundle = Bundle.open(make(tmp_path / dtype, info, rows=table))
        frame = bundle.rows(np.array([3, 1]), start=5 - 1)
        assert frame.array.tobytes() == table[[3, 1]].tobytes()


@pytest.mark.parametrize("transport", ["float32", "float16", "bfloat16"])
def test_rows_travel_in_the_bundles_transport_dtype(transport: str, tmp_path: Path) -> None:
    info = dataclasses.replace(INFO, dtype="bfloat16", transport=transport)
    tables = {"rows": float32_to_bfloat16(ROWS), "positions": float32_to_bfloat16(POSITIONS)}
    frame = Bundle.open(make(tmp_path / "d", info, **tables)).rows(np.array([2]), start=1)
    assert (
        frame.dtype.name == {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}[transport]
    )
    assert np.allclose(frame.as_float32(), ROWS[2] + POSITIONS[1], rtol=0.02, atol=0.02)


@pytest.mark.parametrize(
    ("ids", "start", "named"),
    [
        (np.array([5]), 0, "0 to 4"),
        (np.array([-1]), 0, "0 to 4"),
        (np.array([0, 1]), 5, "6 positions"),
        (np.array([0]), -1, "6 positions"),
        (np.array([[0]]), 0, "integers"),
        (np.array([0.0]), 0, "integers"),
    ],
)
def test_rows_that_do_not_exist_are_refused(
    ids: np.ndarray, start: int, named: str, bundle: Bundle
) -> None:
    with pytest.raises(RequestError, match=named):
        bundle.rows(ids, start=start)


def test_plain_logits_and_plain_ids_undo_the_same_order(bundle: Bundle) -> None:
    """`plain_logits(reply)[..., i] == reply[..., order[i]]`; `plain_ids(order[i]) == i`."""
    reply = KeyedReply(RNG.normal(size=(2, 3, 5)).astype(np.float32))
    plain = bundle.plain_logits(reply)
    assert (plain == reply[..., ORDER]).all()
    assert bundle.plain_ids(ORDER).tolist() == [0, 1, 2, 3, 4]
    assert (bundle.plain_ids(reply.argmax(-1)) == plain.argmax(-1)).all()


def test_keyed_ids_are_undone_by_plain_ids(tmp_path: Path) -> None:
    """`plain_ids(keyed_ids(x)) == x` and `keyed_ids(i) == order[i]`, rows or no rows."""
    for name, info in (("e", INFO), ("t", TOKENS)):
        bundle = Bundle.open(make(tmp_path / name, info))
        plain = np.array([4, 0, 0, 3, 2, 1])
        keyed = bundle.keyed_ids(plain)
        assert keyed.tolist() == ORDER[plain].tolist() != plain.tolist()
        assert keyed.dtype == np.int64
        assert bundle.plain_ids(keyed).tolist() == plain.tolist()
        for ids, named in ((np.array([5]), "0 to 4"), (np.zeros(7, int), "6 positions")):
            with pytest.raises(RequestError, match=named):
                bundle.keyed_ids(ids)


def test_a_bundle_of_tokens_has_no_rows(tmp_path: Path) -> None:
    folder = make(tmp_path / "device", TOKENS)
    assert not (folder / "embedding.safetensors").exists()
    with pytest.raises(RequestError, match="send keyed ids"):
        Bundle.open(folder).rows(np.array([1]), start=0)
    assert DeviceInfo.from_json(TOKENS.to_json()) == TOKENS
    (folder / "head.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"head\.safetensors"):
        Bundle.open(folder)


def test_replies_of_another_size_are_refused(bundle: Bundle) -> None:
    for shape in ((), (4,), (5, 6)):
        with pytest.raises(RequestError, match="expected logits"):
            bundle.plain_logits(KeyedReply(np.zeros(shape, np.float32)))
    for ids in ([5], [-1]):
        with pytest.raises(RequestError, match="below 5"):
            bundle.plain_ids(np.array(ids))


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"rows": ROWS[:4]}, "rows"),
        ({"rows": ROWS.astype(np.float16)}, "F32"),
        ({"positions": POSITIONS[:5]}, "positions"),
        ({"order": np.array([0, 1, 2, 3, 3], np.int32)}, "permutation"),
        ({"order": np.array([0, 1, 2, 3, 5], np.int32)}, "permutation"),
        ({"order": np.array([0, 1, 2, 3, -1], np.int32)}, "permutation"),
        ({"order": ORDER[:4]}, "order"),
    ],
)
def test_files_that_contradict_each_other_are_refused(
    changes: Any, named: str, tmp_path: Path
) -> None:
    with pytest.raises(CheckpointError, match=named):
        Bundle.open(make(tmp_path / "device", **changes))


def test_missing_and_broken_files_are_refused(tmp_path: Path) -> None:
    for name in ("device.json", "embedding.safetensors", "head.safetensors"):
        folder = make(tmp_path / "device")
        (folder / name).write_bytes(b"broken")
        with pytest.raises((CheckpointError, FileTypeError)):
            Bundle.open(folder)
        (folder / name).unlink()
        with pytest.raises(CheckpointError, match=name):
            Bundle.open(folder)


def test_description_survives_its_file() -> None:
    """`from_json(to_json(info)) == info`."""
    info = dataclasses.replace(INFO, chat_template="{{ x }} ü", pad_id=4)
    assert DeviceInfo.from_json(info.to_json()) == info


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"width": 0}, "positive"),
        ({"width": True}, "width"),
        ({"epoch": 2**31}, "32-bit"),
        ({"transport": "float64"}, "float64"),
        ({"transport": None}, "transport"),
        ({"interface": "weights"}, "embeddings and tokens"),
        ({"interface": "tokens"}, "neither replies nor positions"),
        ({"interface": "tokens", "replies": []}, "neither replies nor positions"),
        ({"replies": []}, "replies"),
        ({"replies": ["weights"]}, "replies"),
        ({"replies": [1]}, "replies"),
        ({"eos_ids": [5]}, "below 5"),
        ({"eos_ids": ["1"]}, "eos_ids"),
        ({"bos_id": -1}, "below 5"),
        ({"extra": 1}, "extra"),
        ({"type": "other"}, "type"),
        ({"format_version": 0}, "format version"),
    ],
)
def test_descriptions_that_make_no_sense_are_refused(
    changes: dict[str, Any], named: str
) -> None:
    document = {**json.loads(INFO.to_json()), **changes}
    with pytest.raises(CheckpointError, match=named):
        DeviceInfo.from_json(json.dumps(document).encode())


def test_descriptions_of_the_future_are_named_as_such() -> None:
    document = {**json.loads(INFO.to_json()), "format_version": 4, "new": 1}
    with pytest.raises(FormatVersionError, match="update"):
        DeviceInfo.from_json(json.dumps(document).encode())
    for data in (b"", b"[]", b"{}", b"\xff", b"[" * 100_000):
        with pytest.raises(CheckpointError):
            DeviceInfo.from_json(data)


def test_descriptions_of_the_first_version_are_of_language_models() -> None:
    document = {**json.loads(INFO.to_json()), "format_version": 1}
    for name in ("task", "outputs", "segments", "image"):
        del document[name]
    assert DeviceInfo.from_json(json.dumps(document).encode()) == INFO


def test_keying_needs_no_torch() -> None:
    code = (
        "import sys, triparty.common.keying; "
        "print(*{'torch', 'transformers', 'safetensors', 'typer'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == ""
