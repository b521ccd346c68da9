"""The head on the device: its forms, what they compute, and which are refused."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from triparty.common import device_head, deviceinfo
from triparty.common.deviceinfo import DeviceInfo, HeadInfo
from triparty.common.errors import CheckpointError, FormatVersionError, RequestError
from triparty.common.keying import Bundle, KeyedReply
from triparty.common.tensorfile import TensorEntry, header_bytes
from triparty.common.wire import bfloat16_to_float32, float32_to_bfloat16

V, D = 7, 4
INFO = DeviceInfo(
    family="llama",
    task="causal-lm",
    interface="embeddings",
    width=D,
    vocabulary=V,
    outputs=V,
    max_positions=6,
    positions=False,
    segments=0,
    image=None,
    dtype="float32",
    transport="float32",
    bos_id=0,
    eos_ids=(1,),
    pad_id=None,
    chat_template=None,
    replies=("hidden",),
    epoch=1,
    head=HeadInfo(),
)
RNG = np.random.default_rng(0)
ROWS = RNG.normal(size=(V, D)).astype(np.float32)
WEIGHT = RNG.normal(size=(V, D)).astype(np.float32)
GAIN = RNG.normal(size=D)
HIDDEN = RNG.normal(size=(2, 3, D)).astype(np.float32)
CODES = {"float64": "F64", "float32": "F32", "float16": "F16", "uint16": "BF16", "int32": "I32"}


def write(path: Path, **tensors: NDArray[Any]) -> None:
    entries = {n: TensorEntry(CODES[t.dtype.name], t.shape, 0) for n, t in tensors.items()}
    data = b"".join(tensor.tobytes() for tensor in tensors.values())
    path.write_bytes(header_bytes(entries) + data)


def bundle_of(folder: Path, info: DeviceInfo = INFO, **head: NDArray[Any]) -> Bundle:
    folder.mkdir()
    write(folder / "embedding.safetensors", rows=ROWS)
    write(folder / "head.safetensors", **head)
    (folder / "device.json").write_bytes(info.to_json())
    return Bundle.open(folder)


def logits_of(bundle: Bundle, hidden: NDArray[Any] = HIDDEN) -> NDArray[Any]:
    return bundle.plain_logits(KeyedReply(hidden))


@pytest.mark.parametrize(
    ("stored", "values"),
    [
        (WEIGHT, WEIGHT),
        (WEIGHT.astype(np.float16), WEIGHT.astype(np.float16).astype(np.float32)),
        (float32_to_bfloat16(WEIGHT), bfloat16_to_float32(float32_to_bfloat16(WEIGHT))),
        (WEIGHT.astype(np.float64), WEIGHT),
    ],
)
@pytest.mark.parametrize("run", [1, 3 * D, 1 << 20])
def test_a_weight_of_any_dtype_is_the_product(
    stored: NDArray[Any],
    values: NDArray[Any],
    run: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """`plain == hidden @ weight.T`, however many rows are numbers at a time."""
    monkeypatch.setattr(device_head, "_RUN", run)
    logits = logits_of(bundle_of(tmp_path / "device", weight=stored))
    assert logits.shape == (2, 3, V)
    assert logits.dtype == np.float32
    assert np.allclose(logits, HIDDEN @ values.T, rtol=1e-5, atol=1e-6)


def test_states_of_float64_stay_so(tmp_path: Path) -> None:
    bundle = bundle_of(tmp_path / "device", weight=WEIGHT.astype(np.float64) / 3)
    hidden = HIDDEN.astype(np.float64) / 7
    logits = logits_of(bundle, hidden)
    assert logits.dtype == np.float64
    assert np.allclose(logits, hidden @ (WEIGHT.astype(np.float64) / 3).T, rtol=1e-14)


def test_rows_with_a_gain_are_a_head(tmp_path: Path) -> None:
    bundle = bundle_of(tmp_path / "device", gain=GAIN)
    expected = HIDDEN.astype(np.float64) * GAIN @ ROWS.T
    assert np.allclose(logits_of(bundle), expected, rtol=1e-5, atol=1e-6)
    assert bundle.head is not None
    assert np.allclose(bundle.head.rows(3), ROWS[:3] * GAIN)


def test_the_device_bounds_logits_where_the_model_does(tmp_path: Path) -> None:
    info = dataclasses.replace(INFO, head=HeadInfo(softcap=0.5))
    bounded = logits_of(bundle_of(tmp_path / "bounded", info, weight=WEIGHT))
    free = logits_of(bundle_of(tmp_path / "free", weight=WEIGHT))
    assert np.allclose(bounded, 0.5 * np.tanh(free / 0.5), rtol=1e-5)
    assert np.abs(bounded).max() <= 0.5 < np.abs(free).max()


def test_only_hidden_states_are_taken(tmp_path: Path) -> None:
    bundle = bundle_of(tmp_path / "device", weight=WEIGHT)
    assert (bundle.info.reply, bundle.info.reply_width) == ("hidden", D)
    with pytest.raises(RequestError, match=r"hidden \(\.\.\., 4\)"):
        logits_of(bundle, np.zeros((1, V), np.float32))


@pytest.mark.parametrize(
    ("head", "named"),
    [
        ({"weight": WEIGHT.T.copy()}, r"\[7, 4\]"),
        ({"weight": np.zeros((V, D), np.int32)}, "floating"),
        ({"gain": GAIN[:-1]}, r"\[4\]"),
        ({"gain": GAIN.astype(np.float32)}, "F64"),
        ({"gain": GAIN, "weight": WEIGHT}, "either"),
        ({"order": np.arange(V, dtype=np.int32)}, "either"),
    ],
)
def test_heads_that_make_no_sense_are_refused(
    head: dict[str, NDArray[Any]], named: str, tmp_path: Path
) -> None:
    with pytest.raises(CheckpointError, match=named):
        bundle_of(tmp_path / "device", **head)


# --- device.json


def test_only_a_bundle_with_a_head_needs_the_newest_version(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    without = dataclasses.replace(INFO, head=None, replies=("logits",))
    for info, version in ((INFO, 3), (without, 2)):
        document = json.loads(info.to_json())
        assert document["format_version"] == version
        assert ("head" in document) == (version == 3)
        assert DeviceInfo.from_json(info.to_json()) == info
    monkeypatch.setattr(deviceinfo, "FORMAT_VERSION", 2)  # as the versions before
    assert DeviceInfo.from_json(without.to_json()) == without
    head = json.dumps({**json.loads(INFO.to_json()), "format_version": 3}).encode()
    with pytest.raises(FormatVersionError, match="update"):
        DeviceInfo.from_json(head)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"format_version": 2}, "format version 3"),
        ({"head": None}, "format version 3"),
        ({"head": {}}, "softcap"),
        ({"head": {"softcap": 0}}, "positive"),
        ({"head": {"softcap": "30"}}, "positive"),
        ({"head": {"softcap": None, "scale": 2}}, "softcap"),
        ({"head": [1]}, "wrong type"),
        ({"replies": ["hidden", "logits"]}, "alone"),
        ({"replies": ["logits"]}, "alone"),
        ({"outputs": V + 1}, "alone"),
        ({"interface": "tokens", "replies": []}, "alone"),
    ],
)
def test_heads_that_no_bundle_has_are_refused(changes: dict[str, Any], named: str) -> None:
    document = {**json.loads(INFO.to_json()), **changes}
    with pytest.raises(CheckpointError, match=named):
        DeviceInfo.from_json(json.dumps(document).encode())
