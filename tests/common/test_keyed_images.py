"""What developer and device do with the images and the labels of a bundle."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from triparty.common.deviceinfo import DeviceInfo, ImageInfo
from triparty.common.errors import CheckpointError, RequestError
from triparty.common.keying import Bundle
from triparty.common.tensorfile import TensorEntry, header_bytes

INFO = DeviceInfo(
    family="vit",
    task="image-classification",
    interface="embeddings",
    width=4,
    vocabulary=0,
    outputs=3,
    max_positions=5,
    positions=False,
    segments=0,
    image=ImageInfo(channels=2, size=6, patch=3),
    dtype="float32",
    transport="float32",
    bos_id=None,
    eos_ids=(),
    pad_id=None,
    chat_template=None,
    replies=("logits",),
    epoch=1,
)
MIX = np.random.default_rng(0).normal(size=(18, 18))
ORDER = np.array([2, 0, 1], np.int32)


def write(path: Path, name: str, array: NDArray[Any]) -> None:
    code = {"float64": "F64", "float32": "F32", "int32": "I32"}[array.dtype.name]
    header = header_bytes({name: TensorEntry(code, array.shape, 0)})
    path.write_bytes(header + array.tobytes())


def made(folder: Path, info: DeviceInfo = INFO, *, mix: NDArray[Any] = MIX) -> Path:
    folder.mkdir()
    write(folder / "head.safetensors", "order", ORDER)
    write(folder / "patches.safetensors", "mix", mix)
    (folder / "device.json").write_bytes(info.to_json())
    return folder


def test_each_patch_is_mixed_by_itself(tmp_path: Path) -> None:
    """A patch's pixels count by channel, then by row, then by column."""
    bundle = Bundle.open(made(tmp_path / "device"))
    pixels = np.random.default_rng(1).normal(size=(2, 6, 6))
    keyed = bundle.pixels(pixels)
    assert keyed.shape == pixels.shape
    assert keyed.dtype == np.float64
    for top in (0, 3):
        for left in (0, 3):
            window = (slice(None), slice(top, top + 3), slice(left, left + 3))
            by_hand = (pixels[window].ravel() @ MIX).reshape(2, 3, 3)
            assert np.abs(keyed[window] - by_hand).max() < 1e-12


def test_pixels_stay_float32(tmp_path: Path) -> None:
    bundle = Bundle.open(made(tmp_path / "device"))
    pixels = np.random.default_rng(1).normal(size=(2, 6, 6))
    for dtype in (np.float32, np.float16):
        assert bundle.pixels(pixels.astype(dtype)).dtype == np.float32


def test_pixels_that_trade_places_are_not_rounded(tmp_path: Path) -> None:
    index = np.random.default_rng(2).permutation(18)
    bundle = Bundle.open(made(tmp_path / "device", mix=np.eye(18)[:, index]))
    pixels = np.random.default_rng(1).normal(size=(2, 6, 6)).astype(np.float32)
    corner = bundle.pixels(pixels)[:, :3, :3].ravel()
    assert (corner == pixels[:, :3, :3].ravel()[index]).all()


@pytest.mark.parametrize(
    "pixels",
    [
        np.zeros((2, 6, 5)),
        np.zeros((1, 6, 6)),
        np.zeros((1, 2, 6, 6)),
        np.zeros((2, 6, 6), np.uint8),
    ],
)
def test_other_images_are_refused(pixels: NDArray[Any], tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="expected pixels"):
        Bundle.open(made(tmp_path / "device")).pixels(pixels)


def test_a_model_without_images_takes_none(tmp_path: Path) -> None:
    bundle = Bundle.open(made(tmp_path / "device", dataclasses.replace(INFO, image=None)))
    with pytest.raises(RequestError, match="no images"):
        bundle.pixels(np.zeros((2, 6, 6)))


def test_ids_of_a_model_without_text_are_refused(tmp_path: Path) -> None:
    bundle = Bundle.open(made(tmp_path / "device"))
    with pytest.raises(RequestError):
        bundle.rows(np.array([0]), start=0)
    with pytest.raises(RequestError):
        bundle.keyed_ids(np.array([0]))


def test_rows_of_a_text_without_images_hold_none(tmp_path: Path) -> None:
    folder = made(tmp_path / "device", dataclasses.replace(INFO, vocabulary=3))
    write(folder / "embedding.safetensors", "rows", np.ones((3, 4), np.float32))
    bundle = Bundle.open(folder)
    assert (bundle.values(np.array([2]), start=0) == 1).all()
    with pytest.raises(RequestError, match="no images in its texts"):
        bundle.values(np.array([2]), start=0, images=True)


@pytest.mark.parametrize(("token_id", "tokens"), [(None, 4), (2, 0), (2, True), (2, 2**31)])
def test_an_image_takes_tokens_only_where_one_stands_for_it(
    token_id: int | None, tokens: int
) -> None:
    with pytest.raises(CheckpointError, match="takes tokens"):
        ImageInfo(channels=2, size=6, patch=3, token_id=token_id, tokens=tokens)


@pytest.mark.parametrize("mix", [np.eye(17), np.eye(18, dtype=np.float32), None])
def test_a_mix_that_contradicts_the_images_is_refused(mix: Any, tmp_path: Path) -> None:
    folder = made(tmp_path / "device", mix=MIX if mix is None else mix)
    if mix is None:
        (folder / "patches.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"mix|patches\.safetensors"):
        Bundle.open(folder)


def test_labels_are_the_names_of_the_answers(tmp_path: Path) -> None:
    folder = made(tmp_path / "device")
    assert Bundle.open(folder).labels() == ()
    (folder / "labels.json").write_text(json.dumps(["eins", "zwei", "drei"]))
    assert Bundle.open(folder).labels() == ("eins", "zwei", "drei")


@pytest.mark.parametrize("document", ['["one"]', "{}", "[1, 2, 3]", "nothing"])
def test_broken_labels_are_refused(document: str, tmp_path: Path) -> None:
    folder = made(tmp_path / "device")
    (folder / "labels.json").write_text(document)
    with pytest.raises(CheckpointError, match=r"labels\.json"):
        Bundle.open(folder).labels()
