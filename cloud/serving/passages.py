"""The inputs of a forward request: frames in, whole texts or images out, and answers back.

Which frames a body has, in which order, is said by `Triparty-Inputs`. Texts are padded on the
right; `mask` says where they end, and what stands behind is never looked at.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from triparty.cloud.serving.engine import (
    Arrays,
    EncoderInfo,
    Image,
    ImageInput,
    Inputs,
    Passage,
    Text,
    TextInput,
)
from triparty.common.errors import RequestError, TooLargeError
from triparty.common.wire import DType, Frame

FLOAT32_BYTES = 4
ID_BYTES = 8


class InputName(StrEnum):
    """What a frame of a forward request may be."""

    ROWS = "rows"
    IDS = "ids"
    PIXELS = "pixels"
    MASK = "mask"
    TYPES = "types"
    GLOBAL = "global"


TEXT_INPUTS = (InputName.ROWS, InputName.MASK)
"""The inputs of a request that names none."""

Named = Mapping[InputName, Frame]


@dataclass(frozen=True)
class Batch:
    """The inputs of one request.

    Attributes:
        passages: B texts or images.
        rows: T to which all texts are padded; 0 for images.
    """

    passages: tuple[Passage, ...]
    rows: int


def input_names(header: str | None) -> tuple[InputName, ...]:
    """What a `Triparty-Inputs` header names, in order; rows and mask if there is none.

    Raises:
        RequestError: an unknown name, or one twice.
    """
    if header is None:
        return TEXT_INPUTS
    given = [name.strip() for name in header.split(",")]
    if not set(given) <= set(InputName) or len(set(given)) != len(given):
        raise RequestError(
            f"Triparty-Inputs names the frames of the body in order, each once, out of "
            f"{', '.join(InputName)}; got {header[:80]!r}"
        )
    return tuple(InputName(name) for name in given)


def check_names(names: Sequence[InputName], info: EncoderInfo) -> None:
    """Compares the inputs of a request with what a model takes, before they are read.

    Raises:
        RequestError: an input that it does not take, or one that is missing.
    """
    forms = [_text_form(info.text)] if info.text else []
    forms += [((InputName.PIXELS,), ())] if info.image else []
    for needed, allowed in forms:
        if set(needed) <= set(names) <= {*needed, *allowed}:
            return
    expected = " or ".join(
        ", ".join([*needed, *(f"[{name}]" for name in allowed)]) for needed, allowed in forms
    )
    raise RequestError(f"this model takes the inputs {expected}; got {', '.join(names)}")


def most_bytes(info: EncoderInfo, *, most_rows: int) -> int:
    """Most payload bytes of a request that a model takes.

    Args:
        info: the model.
        most_rows: that all its texts or images may have together.
    """
    sizes = [0]
    if info.text is not None:
        width = info.text.width
        row_bytes = ID_BYTES if width is None else FLOAT32_BYTES * width
        sizes.append(most_rows * (row_bytes + 2 * ID_BYTES))
    if info.image is not None:
        images = most_rows // info.image.rows
        sizes.append(images * FLOAT32_BYTES * int(np.prod(info.image.shape)))
    return max(sizes)


def read_batch(frames: Named, info: EncoderInfo, *, most_rows: int, most_answer: int) -> Batch:
    """The texts or images of a request.

    Args:
        frames: by name; `check_names` took the names.
        info: the model.
        most_rows: that all may have together, padding included.
        most_answer: most bytes of the answer.

    Raises:
        RequestError: a frame of a wrong shape or type, a mask that is none, ids or types that
            the model has no row of, numbers that are not finite.
        TooLargeError: more rows, or more of an answer, than a request may have.
    """
    if InputName.PIXELS in frames and info.image is not None:
        return _images(frames, info, info.image, most_rows=most_rows, most_answer=most_answer)
    if info.text is None:
        raise RequestError("this model takes no texts")
    name = InputName.IDS if info.text.width is None else InputName.ROWS
    shape = _text_shape(frames[name], name, info.text)
    count, rows = shape
    if count * rows > most_rows:
        raise TooLargeError(
            f"a forward request has at most {most_rows} rows, padding included; "
            f"got {count} x {rows}: send fewer texts at once"
        )
    _check_answer("texts", count * rows if info.per_row else count, info, most_answer)
    lengths = _lengths(frames[InputName.MASK], shape, info.text.positions)
    tokens: Inputs
    if name is InputName.IDS:
        tokens = _numbers(frames, name, shape, below=info.text.vocabulary)
    else:
        tokens = _finite(frames[name], name)
    types = None
    if InputName.TYPES in frames:
        types = _numbers(frames, InputName.TYPES, shape, below=info.text.types)
    attends = None
    if InputName.GLOBAL in frames:
        attends = _numbers(frames, InputName.GLOBAL, shape, below=2).astype(np.bool_)
    texts = tuple(
        Text(
            tokens[at, :length],
            types=None if types is None else types[at, :length],
            attends=None if attends is None else attends[at, :length],
        )
        for at, length in enumerate(lengths)
    )
    return Batch(texts, rows)


def answer_frame(batch: Batch, arrays: Sequence[Arrays], info: EncoderInfo) -> Frame:
    """The reply: (B, O), or (B, T, O) with zeros where a text has no rows."""
    answers = [array for (array,) in arrays]
    if not info.per_row or not batch.rows:  # images have as many rows each
        return Frame.of(np.stack(answers))
    padded = np.zeros((len(answers), batch.rows, info.outputs), np.float32)
    for at, answer in enumerate(answers):
        padded[at, : len(answer)] = answer
    return Frame.of(padded)


def _text_form(text: TextInput) -> tuple[tuple[InputName, ...], tuple[InputName, ...]]:
    """What a text needs, and what it may have."""
    first = InputName.IDS if text.width is None else InputName.ROWS
    optional = {InputName.TYPES: text.types > 0, InputName.GLOBAL: text.attends_globally}
    return (first, InputName.MASK), tuple(name for name, taken in optional.items() if taken)


def _check_answer(what: str, answers: int, info: EncoderInfo, most_answer: int) -> None:
    size = FLOAT32_BYTES * info.outputs * answers
    if size > most_answer:
        raise TooLargeError(
            f"the answer would have {size} bytes, limit {most_answer}: send fewer {what} at "
            f"once"
        )


def _images(
    frames: Named, info: EncoderInfo, image: ImageInput, *, most_rows: int, most_answer: int
) -> Batch:
    frame = frames[InputName.PIXELS]
    shape = frame.array.shape
    if len(shape) != 4 or shape[1:] != image.shape or not shape[0]:
        expected = ", ".join(map(str, image.shape))
        raise RequestError(f"expected pixels (B, {expected}), B at least 1, got {shape}")
    if shape[0] * image.rows > most_rows:
        raise TooLargeError(
            f"a forward request has at most {most_rows} rows, and an image of this model makes "
            f"{image.rows}; got {shape[0]}: send fewer images at once"
        )
    answers = shape[0] * (image.rows if info.per_row else 1)
    _check_answer("images", answers, info, most_answer)
    pixels = _finite(frame, InputName.PIXELS)
    return Batch(tuple(Image(each, image.rows) for each in pixels), 0)


def _text_shape(frame: Frame, name: InputName, text: TextInput) -> tuple[int, int]:
    """B and T of the frame that holds the texts."""
    shape = frame.array.shape
    dims = ("B", "T") if text.width is None else ("B", "T", str(text.width))
    is_wide = text.width is None or shape[-1:] == (text.width,)
    if len(shape) != len(dims) or not is_wide or 0 in shape:
        raise RequestError(
            f"expected {name} ({', '.join(dims)}), B and T at least 1, got {shape}"
        )
    return shape[0], shape[1]


def _lengths(frame: Frame, shape: tuple[int, int], positions: int) -> list[int]:
    """How many rows each text has."""
    mask = _integers(frame, InputName.MASK, shape)
    ends = np.pad(mask, ((0, 0), (0, 1)))
    if not np.isin(mask, (0, 1)).all() or (np.diff(ends) > 0).any() or not mask[:, 0].all():
        raise RequestError(
            "a mask has 1 for each row of a text and 0 for the padding on its right, and every "
            "text has a row"
        )
    lengths: list[int] = mask.sum(axis=1).tolist()
    if max(lengths) > positions:
        raise TooLargeError(
            f"a text of this model has at most {positions} rows, got {max(lengths)}: shorten it"
        )
    return lengths


def _numbers(
    frames: Named, name: InputName, shape: tuple[int, int], *, below: int
) -> NDArray[np.int64]:
    """Numbers from 0, as ids and types are."""
    numbers = _integers(frames[name], name, shape)
    if numbers.min() < 0 or numbers.max() >= below:
        raise RequestError(f"expected {name} from 0 to {below - 1}, in the padding too")
    return numbers


def _integers(frame: Frame, name: InputName, shape: tuple[int, int]) -> NDArray[np.int64]:
    if frame.dtype not in (DType.I32, DType.I64) or frame.array.shape != shape:
        raise RequestError(
            f"expected {name} {shape} of integers, got {frame.array.shape} {frame.dtype.name}"
        )
    return frame.array.astype(np.int64)


def _finite(frame: Frame, name: InputName) -> NDArray[np.float32]:
    values = frame.as_float32()
    if not np.isfinite(values).all():
        raise RequestError(f"the {name} are finite numbers, got NaN or infinity")
    return values


def named(names: Sequence[InputName], frames: Sequence[Frame]) -> Named:
    """The frames of a body by their names.

    Raises:
        RequestError: more or fewer frames than names.
    """
    if len(frames) != len(names):
        raise RequestError(
            f"Triparty-Inputs names {len(names)} frames, the body has {len(frames)}"
        )
    return dict(zip(names, frames, strict=True))
