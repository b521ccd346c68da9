"""The inputs of a forward request: what is read is what was sent, and all else is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from triparty.cloud.serving.engine import (
    EncoderInfo,
    Image,
    ImageInput,
    ReplyKind,
    Text,
    TextInput,
)
from triparty.cloud.serving.passages import (
    InputName,
    answer_frame,
    check_names,
    input_names,
    most_bytes,
    named,
    read_batch,
)
from triparty.common.errors import FrameError, RequestError, TooLargeError, TripartyError
from triparty.common.wire import DType, Frame, decode_frames, encode_frames

ROWS = EncoderInfo(
    "fake", ReplyKind.LOGITS, 3, per_row=True, text=TextInput(6, width=4, vocabulary=0)
)
LONG = replace(ROWS, text=TextInput(6, width=4, vocabulary=0, attends_globally=True))
IDS = EncoderInfo(
    "fake",
    ReplyKind.LOGITS,
    3,
    per_row=False,
    text=TextInput(6, width=None, vocabulary=9, types=2),
)
IMAGES = EncoderInfo(
    "fake", ReplyKind.LOGITS, 3, per_row=False, image=ImageInput((3, 4, 4), rows=5)
)
BOTH = replace(IDS, image=IMAGES.image)
MOST_ROWS = 40


def read(info: EncoderInfo, **arrays: Any) -> Any:
    names = tuple(InputName(name.rstrip("_")) for name in arrays)
    check_names(names, info)
    frames = [a if isinstance(a, Frame) else Frame.of(np.asarray(a)) for a in arrays.values()]
    return read_batch(named(names, frames), info, most_rows=MOST_ROWS, most_answer=400)


def rows_of(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def mask_of(*lengths: int, width: int = 5) -> np.ndarray:
    return (np.arange(width) < np.array(lengths)[:, None]).astype(np.int32)


def test_texts_end_where_the_mask_says() -> None:
    rows = rows_of(3, 5, 4)
    batch = read(ROWS, rows=rows, mask=mask_of(5, 1, 3))
    assert [text.rows for text in batch.passages] == [5, 1, 3]
    for text, row, length in zip(batch.passages, rows, (5, 1, 3), strict=True):
        assert isinstance(text, Text)
        assert (text.tokens == row[:length]).all()
        assert (text.types, text.attends) == (None, None)


def test_half_precision_rows_are_taken() -> None:
    rows = np.ones((1, 5, 4), np.float16)
    bits = Frame(DType.BF16, np.full((1, 5, 4), 0x3F80, "<u2"))
    for given_rows in (rows, bits):
        batch = read(ROWS, rows=given_rows, mask=mask_of(5))
        assert batch.passages[0].tokens.dtype == np.float32
        assert (batch.passages[0].tokens == 1).all()


def test_ids_types_and_global_attention_are_taken() -> None:
    ids = np.arange(10, dtype=np.int64).reshape(2, 5) % 9
    types = np.array([[0, 0, 1, 1, 0], [0, 1, 1, 0, 0]], np.int32)
    batch = read(IDS, ids=ids, mask=mask_of(4, 3), types=types)
    assert batch.passages[1].tokens.tolist() == ids[1, :3].tolist()
    assert batch.passages[0].types.tolist() == [0, 0, 1, 1]
    attends = np.array([[1, 0, 0, 0, 1]], np.int32)
    batch = read(LONG, rows=rows_of(1, 5, 4), mask=mask_of(3), global_=attends)
    assert batch.passages[0].attends.tolist() == [True, False, False]


def test_images_are_taken_whole() -> None:
    pixels = rows_of(2, 3, 4, 4)
    for info in (IMAGES, BOTH):
        batch = read(info, pixels=pixels)
        assert all(isinstance(image, Image) and image.rows == 5 for image in batch.passages)
        assert (np.stack([image.pixels for image in batch.passages]) == pixels).all()


def test_rows_of_images_are_bounded_and_put_together() -> None:
    seen = replace(IMAGES, per_row=True)
    batch = read(seen, pixels=rows_of(6, 3, 4, 4))
    answers = [(rows_of(4, 3) + n,) for n in range(6)]
    frame = answer_frame(batch, answers, seen)
    assert np.array_equal(frame.array, np.stack([rows for (rows,) in answers]))
    with pytest.raises(TooLargeError, match="420 bytes, limit 400: send fewer images"):
        read(seen, pixels=rows_of(7, 3, 4, 4))


def test_answers_are_put_together_again() -> None:
    batch = read(ROWS, rows=rows_of(2, 5, 4), mask=mask_of(5, 2))
    answers = [(np.full((n, 3), n, np.float32),) for n in (5, 2)]
    frame = answer_frame(batch, answers, ROWS)
    assert frame.array.shape == (2, 5, 3)
    assert frame.array[1].tolist() == [[2] * 3] * 2 + [[0] * 3] * 3
    whole = answer_frame(batch, [(np.ones(3, np.float32),)] * 2, IDS)
    assert whole.array.shape == (2, 3)


WRONG: dict[str, tuple[EncoderInfo, dict[str, Any], type[TripartyError], str]] = {
    "no mask": (ROWS, {"rows": rows_of(1, 5, 4)}, RequestError, "rows, mask"),
    "rows for ids": (IDS, {"rows": rows_of(1, 5, 4), "mask": mask_of(5)}, RequestError, "ids"),
    "ids for rows": (
        ROWS,
        {"ids": mask_of(5), "mask": mask_of(5)},
        RequestError,
        "rows, mask; got ids",
    ),
    "types with rows": (
        ROWS,
        {"rows": rows_of(1, 5, 4), "mask": mask_of(5), "types": mask_of(5)},
        RequestError,
        "types",
    ),
    "global attention of a model without": (
        ROWS,
        {"rows": rows_of(1, 5, 4), "mask": mask_of(5), "global_": mask_of(5)},
        RequestError,
        "global",
    ),
    "pixels for a model of texts": (
        ROWS,
        {"pixels": rows_of(1, 3, 4, 4)},
        RequestError,
        "rows",
    ),
    "texts for a model of images": (
        IMAGES,
        {"rows": rows_of(1, 5, 4), "mask": mask_of(5)},
        RequestError,
        "pixels",
    ),
    "a mask of another shape": (
        ROWS,
        {"rows": rows_of(2, 5, 4), "mask": mask_of(5)},
        RequestError,
        "mask",
    ),
    "a mask of floats": (
        ROWS,
        {"rows": rows_of(1, 5, 4), "mask": np.ones((1, 5), np.float32)},
        RequestError,
        "integers",
    ),
    "a text without rows": (
        ROWS,
        {"rows": rows_of(2, 5, 4), "mask": mask_of(5, 0)},
        RequestError,
        "every text has a row",
    ),
    "padding on the left": (
        ROWS,
        {"rows": rows_of(1, 5, 4), "mask": mask_of(3)[:, ::-1].copy()},
        RequestError,
        "padding on its right",
    ),
    "a hole": (
        ROWS,
        {"rows": rows_of(1, 5, 4), "mask": np.array([[1, 0, 1, 0, 0]], np.int32)},
        RequestError,
        "padding on its right",
    ),
    "twos": (
        ROWS,
        {"rows": rows_of(1, 5, 4), "mask": 2 * mask_of(3)},
        RequestError,
        "has 1 for each",
    ),
    "no texts": (
        ROWS,
        {"rows": rows_of(0, 5, 4), "mask": np.zeros((0, 5), np.int32)},
        RequestError,
        "B and T at least 1",
    ),
    "no rows": (
        ROWS,
        {"rows": rows_of(2, 0, 4), "mask": np.zeros((2, 0), np.int32)},
        RequestError,
        "B and T at least 1",
    ),
    "another width": (
        ROWS,
        {"rows": rows_of(1, 5, 3), "mask": mask_of(5)},
        RequestError,
        "4",
    ),
    "one text without its axis": (
        ROWS,
        {"rows": rows_of(5, 4), "mask": mask_of(5)},
        RequestError,
        "B, T, 4",
    ),
    "integers for rows": (
        ROWS,
        {"rows": np.ones((1, 5, 4), np.int32), "mask": mask_of(5)},
        FrameError,
        "floating",
    ),
    "NaN": (
        ROWS,
        {"rows": np.full((1, 5, 4), np.nan, np.float32), "mask": mask_of(5)},
        RequestError,
        "finite",
    ),
    "NaN behind the end": (
        ROWS,
        {
            "rows": np.where(mask_of(3)[..., None] == 1, 0, np.nan).astype(np.float32)
            * np.ones((1, 1, 4), np.float32),
            "mask": mask_of(3),
        },
        RequestError,
        "finite",
    ),
    "infinite pixels": (
        IMAGES,
        {"pixels": np.full((1, 3, 4, 4), np.inf, np.float32)},
        RequestError,
        "finite",
    ),
    "pixels of another size": (
        IMAGES,
        {"pixels": rows_of(1, 3, 4, 5)},
        RequestError,
        "3, 4, 4",
    ),
    "no images": (IMAGES, {"pixels": rows_of(0, 3, 4, 4)}, RequestError, "B at least 1"),
    "an id past the table": (
        IDS,
        {"ids": np.full((1, 5), 9, np.int32), "mask": mask_of(5)},
        RequestError,
        "from 0 to 8",
    ),
    "a negative id": (
        IDS,
        {"ids": np.full((1, 5), -1, np.int32), "mask": mask_of(5)},
        RequestError,
        "from 0 to 8",
    ),
    "a type past the table": (
        IDS,
        {"ids": mask_of(5), "mask": mask_of(5), "types": 2 * mask_of(5)},
        RequestError,
        "from 0 to 1",
    ),
    "a text that is too long": (
        ROWS,
        {"rows": rows_of(1, 7, 4), "mask": mask_of(7, width=7)},
        TooLargeError,
        "at most 6 rows",
    ),
    "too many rows": (
        ROWS,
        {"rows": rows_of(9, 5, 4), "mask": mask_of(*[1] * 9)},
        TooLargeError,
        "at most 40 rows, padding included",
    ),
    "too many images": (
        IMAGES,
        {"pixels": rows_of(9, 3, 4, 4)},
        TooLargeError,
        "at most 40 rows",
    ),
    "too large an answer": (
        ROWS,
        {"rows": rows_of(7, 5, 4), "mask": mask_of(*[1] * 7)},
        TooLargeError,
        "420 bytes, limit 400",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_makes_no_sense_is_refused(case: str) -> None:
    info, arrays, kind, words = WRONG[case]
    with pytest.raises(kind, match=words):
        read(info, **arrays)


def test_names_and_frames_belong_together() -> None:
    frames = [Frame.of(rows_of(1, 5, 4))]
    with pytest.raises(RequestError, match="names 2 frames, the body has 1"):
        named((InputName.ROWS, InputName.MASK), frames)


def test_the_header_names_each_input_once() -> None:
    assert input_names(None) == (InputName.ROWS, InputName.MASK)
    assert input_names("mask, rows") == (InputName.MASK, InputName.ROWS)
    for header in ("", "rows,rows", "rows,masks", "rows;mask", "rows," * 99):
        with pytest.raises(RequestError, match="Triparty-Inputs"):
            input_names(header)


@pytest.mark.parametrize("info", [ROWS, LONG, IDS, IMAGES, BOTH])
def test_all_that_is_taken_is_within_the_bytes_that_are_read(info: EncoderInfo) -> None:
    bodies = []
    if info.text is not None:
        shape = (8, 5) if info.text.width is None else (8, 5, info.text.width)
        arrays = {
            "tokens": np.zeros(shape, np.int64 if info.text.width is None else np.float32)
        }
        arrays["mask"] = np.ones((8, 5), np.int64)
        if info.text.types or info.text.attends_globally:
            arrays["more"] = np.zeros((8, 5), np.int64)
        bodies.append(sum(array.nbytes for array in arrays.values()))
    if info.image is not None:
        bodies.append(rows_of(8, *info.image.shape).nbytes)
    assert max(bodies) <= most_bytes(info, most_rows=MOST_ROWS)


VALID = {
    "rows": encode_frames(Frame.of(rows_of(2, 5, 4)), Frame.of(mask_of(5, 2))),
    "ids": encode_frames(Frame.of(mask_of(5, 2)), Frame.of(mask_of(5, 2))),
    "pixels": encode_frames(Frame.of(rows_of(2, 3, 4, 4))),
}


@settings(max_examples=300)
@given(
    st.sampled_from(sorted(VALID)),
    st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=6),
    st.integers(0, 60),
)
def test_a_mutated_body_is_refused_or_read(
    kind: str, changes: list[tuple[int, int]], cut: int
) -> None:
    """Never anything but a typed error, and whatever is read is what a model can run."""
    body = bytearray(VALID[kind])
    for at, value in changes:
        body[at % len(body)] = value
    info = {"rows": ROWS, "ids": IDS, "pixels": IMAGES}[kind]
    names = {"rows": "rows,mask", "ids": "ids,mask", "pixels": "pixels"}[kind]
    try:
        frames = decode_frames(bytes(body[: len(body) - cut]), limit_bytes=4096, max_frames=4)
        chosen = named(input_names(names), frames)
        batch = read_batch(chosen, info, most_rows=MOST_ROWS, most_answer=400)
    except (RequestError, FrameError, TooLargeError):
        return
    for passage in batch.passages:
        assert passage.rows >= 1
        if isinstance(passage, Text) and passage.tokens.ndim == 1:
            assert ((passage.tokens >= 0) & (passage.tokens < 9)).all()
        elif isinstance(passage, Text):
            assert np.isfinite(passage.tokens).all()
