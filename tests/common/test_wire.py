import math
import struct
import tracemalloc
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from triparty.common.errors import FrameError, TooLargeError
from triparty.common.wire import (
    DType,
    Frame,
    bfloat16_to_float32,
    decode_frames,
    encode_frame,
    encode_frames,
    float32_to_bfloat16,
)

Mutated = Callable[[bytes], st.SearchStrategy[bytes]]
LIMIT = 1 << 20
MAX_U32 = 2**32 - 1


@st.composite
def frames(draw: st.DrawFn, *, min_side: int = 0) -> Frame:
    dtype = draw(st.sampled_from(DType))
    shape = draw(hnp.array_shapes(min_dims=0, max_dims=4, min_side=min_side, max_side=4))
    bits = np.dtype(f"<u{dtype.storage.itemsize}")  # every bit pattern, every NaN too
    array: NDArray[Any] = draw(hnp.arrays(bits, shape))
    return Frame(dtype, array.view(dtype.storage))


def _same(a: Frame, b: Frame) -> bool:
    return (
        a.dtype is b.dtype
        and a.array.shape == b.array.shape
        and a.array.tobytes() == b.array.tobytes()
    )


def _header(
    *dims: int,
    length: int,
    magic: bytes = b"TPF1",
    version: int = 1,
    dtype: int = 0,
    ndim: int | None = None,
    zero: int = 0,
) -> bytes:
    count = len(dims) if ndim is None else ndim
    head = struct.pack("<4sBBBB", magic, version, dtype, count, zero)
    return head + struct.pack(f"<{len(dims)}I", *dims) + struct.pack("<Q", length)


@given(st.lists(frames(), min_size=1, max_size=8))
def test_decode_gives_back_what_was_encoded_bit_for_bit(sent: list[Frame]) -> None:
    got = decode_frames(encode_frames(*sent), limit_bytes=LIMIT)
    assert len(got) == len(sent)
    assert all(_same(a, b) for a, b in zip(got, sent, strict=True))


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.int32, np.int64])
@pytest.mark.parametrize("shape", [(), (0,), (1,), (2, 3), (0, 7), (1, 1, 1, 1)])
def test_frame_of_keeps_shape_and_values(dtype: type, shape: tuple[int, ...]) -> None:
    array: NDArray[Any] = np.arange(math.prod(shape), dtype=dtype).reshape(shape)
    (got,) = decode_frames(encode_frame(Frame.of(array)), limit_bytes=LIMIT)
    assert got.array.shape == shape
    assert got.array.dtype == dtype
    np.testing.assert_array_equal(got.array, array)


def test_strided_arrays_are_sent_in_order() -> None:
    array = np.arange(12, dtype=np.float32).reshape(3, 4)
    for view in (array.T, array[:, ::2], array[::-1]):
        (got,) = decode_frames(encode_frame(Frame.of(view)), limit_bytes=LIMIT)
        np.testing.assert_array_equal(got.array, view)
        (got,) = decode_frames(encode_frame(Frame(DType.F32, view)), limit_bytes=LIMIT)
        np.testing.assert_array_equal(got.array, view)


def test_decoded_arrays_are_read_only_views() -> None:
    (got,) = decode_frames(encode_frame(Frame.of(np.ones(3, np.float32))), limit_bytes=LIMIT)
    assert not got.array.flags.writeable
    assert got.array.base is not None


def test_a_frame_refuses_what_the_wire_cannot_carry() -> None:
    for array in (np.ones(2, np.float64), np.ones(2, bool), np.ones(2, ">f4")):
        with pytest.raises(FrameError, match="no frame dtype"):
            Frame.of(array)
    with pytest.raises(FrameError, match="holds float32 elements, got float16"):
        Frame(DType.F32, np.ones(2, np.float16))
    with pytest.raises(FrameError, match="at most 4 dimensions"):
        Frame(DType.F32, np.ones((1,) * 5, np.float32))
    with pytest.raises(FrameError, match="32-bit"):
        Frame(DType.F32, np.empty((2**32, 0), np.float32))


def test_as_float32() -> None:
    values = np.array([1.5, -2.0], np.float32)
    for frame in (
        Frame.of(values),
        Frame.of(values.astype(np.float16)),
        Frame(DType.BF16, float32_to_bfloat16(values)),
    ):
        np.testing.assert_array_equal(frame.as_float32(), values)
    with pytest.raises(FrameError, match="floating-point frame, got I32"):
        Frame.of(np.ones(2, np.int32)).as_float32()


# Hostile bodies


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "has 8 bytes, got 0"),
        (b"TPF1\x01\0\0", "has 8 bytes, got 7"),
        (_header(1, length=4, magic=b"TPF2") + b"1234", "magic"),
        (_header(1, length=4, version=2) + b"1234", "version 1, got 2"),
        (_header(1, length=4, dtype=5) + b"1234", "unknown frame dtype 5"),
        (_header(1, length=4, dtype=255) + b"1234", "unknown frame dtype 255"),
        (_header(1, 1, 1, 1, 1, length=4) + b"1234", "at most 4 dimensions, got 5"),
        (_header(length=4, ndim=255) + b"1234", "at most 4 dimensions, got 255"),
        (_header(1, length=4, zero=1) + b"1234", "zero byte"),
        (b"TPF1\x01\0\x04\0" + b"\0" * 23, "ends inside its header"),
        (_header(2, length=4) + b"1234", "has 8 bytes, not 4"),
        (_header(1, length=8) + b"12345678", "has 4 bytes, not 8"),
        (_header(1, length=4) + b"123", "ends after 3 of 4 bytes"),
        (_header(1, length=4) + b"12345", "has 8 bytes, got 1"),
        (_header(2**31, 2**31, 4, length=0), "not 0"),  # the product wraps around in 64 bits
        (_header(2**16, 2**16, 2**16, 2**16, length=0), "not 0"),
        (_header(0, MAX_U32, MAX_U32, MAX_U32, length=0), "no array has shape"),
        (_header(MAX_U32, MAX_U32, MAX_U32, 0, length=0), "no array has shape"),
    ],
)
def test_bodies_that_are_no_frames(body: bytes, message: str) -> None:
    with pytest.raises(FrameError, match=message):
        decode_frames(body, limit_bytes=LIMIT)


def test_limits() -> None:
    frame = Frame.of(np.ones(4, np.float32))
    decode_frames(encode_frames(frame, frame), limit_bytes=32, max_frames=2)
    with pytest.raises(TooLargeError, match="limit 15"):
        decode_frames(encode_frame(frame), limit_bytes=15)
    with pytest.raises(TooLargeError, match="limit 15"):  # all frames together
        decode_frames(encode_frames(frame, frame), limit_bytes=31)
    with pytest.raises(FrameError, match="at most 2 frames"):
        decode_frames(encode_frames(frame, frame, frame), limit_bytes=LIMIT, max_frames=2)


@pytest.mark.parametrize(
    "body",
    [
        _header(2**28, length=2**30),
        _header(MAX_U32, MAX_U32, MAX_U32, MAX_U32, dtype=4, length=2**64 - 1),
        _header(2**20, 2**10, length=2**32),
        _header(0, MAX_U32, MAX_U32, MAX_U32, length=0),
    ],
)
@pytest.mark.parametrize("limit_bytes", [LIMIT, 2**62])
def test_hostile_headers_allocate_nothing(body: bytes, limit_bytes: int) -> None:
    tracemalloc.start()
    try:
        with pytest.raises((FrameError, TooLargeError)):
            decode_frames(body, limit_bytes=limit_bytes)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 64 * 1024


@given(st.binary(max_size=60))
def test_any_bytes_are_frames_or_a_typed_error(body: bytes) -> None:
    for data in (body, b"TPF1\x01" + body):
        try:
            decode_frames(data, limit_bytes=LIMIT)
        except (FrameError, TooLargeError):
            continue


@given(frames(min_side=1), st.data())
def test_no_changed_header_is_taken_for_another_shape(
    mutated: Mutated, frame: Frame, data: st.DataObject
) -> None:
    """A frame is not signed: TLS protects it. Its header still has no room for a change.

    One exception belongs to the format: a dtype code of the same width. That is why the
    cloud compares the dtype with what the session expects.
    """
    body = encode_frame(frame)
    size = len(body) - frame.array.nbytes
    changed = data.draw(mutated(body[:size])) + body[size:]
    try:
        (got,) = decode_frames(changed, limit_bytes=LIMIT)
    except (FrameError, TooLargeError):
        return
    assert got.array.shape == frame.array.shape
    assert got.array.tobytes() == frame.array.tobytes()
    assert got.dtype.storage.itemsize == frame.dtype.storage.itemsize
    assert changed[:5] + changed[6:] == body[:5] + body[6:]


# bfloat16


def _reference_bfloat16(value: float) -> int:
    """Round to nearest, ties to even, by exact fractions; not for NaN or infinity."""
    bits = int.from_bytes(struct.pack("<f", value), "little")
    low, magnitude = bits >> 16, abs(Fraction(value))
    down = _magnitude(low)
    up = _magnitude(low + 1)
    if magnitude - down != up - magnitude:
        return low if magnitude - down < up - magnitude else low + 1
    return low if low % 2 == 0 else low + 1


def _magnitude(pattern: int) -> Fraction:
    """|value| of a bfloat16 pattern; infinity counts as the next power of two (IEEE 754)."""
    exponent, mantissa = (pattern >> 7) & 0xFF, pattern & 0x7F
    if exponent == 0:
        return Fraction(mantissa) * Fraction(2) ** -133
    return Fraction(128 + mantissa) * Fraction(2) ** (exponent - 134)


@given(st.floats(width=32, allow_nan=False, allow_infinity=False))
def test_bfloat16_rounds_to_the_nearest_ties_to_even(value: float) -> None:
    got = float32_to_bfloat16(np.array([value], np.float32))
    assert int(got[0]) == _reference_bfloat16(value)


@pytest.mark.parametrize(
    ("bits", "expected"),
    [
        (0x3F808000, 0x3F80),  # tie, even stays
        (0x3F818000, 0x3F82),  # tie, odd goes up
        (0x3F808001, 0x3F81),
        (0x3F807FFF, 0x3F80),
        (0x7F7FFFFF, 0x7F80),  # the largest float32 becomes infinity
        (0x7F7F7FFF, 0x7F7F),
        (0x7F800000, 0x7F80),
        (0xFF800000, 0xFF80),
        (0x80000000, 0x8000),  # minus zero
        (0x00000001, 0x0000),
        (0x00008001, 0x0001),
    ],
)
def test_bfloat16_corner_cases(bits: int, expected: int) -> None:
    values = np.array([bits], np.uint32).view(np.float32)
    assert int(float32_to_bfloat16(values)[0]) == expected


@pytest.mark.parametrize("bits", [0x7F800001, 0x7FFFFFFF, 0xFF800001, 0xFFFFFFFF, 0x7FC00000])
@pytest.mark.parametrize("shape", [(), (1,), (2, 2)])
def test_nan_stays_nan_with_its_sign(bits: int, shape: tuple[int, ...]) -> None:
    values = np.full(shape, bits, np.uint32).view(np.float32)
    patterns = float32_to_bfloat16(values)
    assert patterns.shape == shape
    assert np.isnan(bfloat16_to_float32(patterns)).all()
    assert ((patterns >> 15) == bits >> 31).all()


def test_every_bfloat16_survives_a_round_trip() -> None:
    patterns = np.arange(2**16, dtype=np.uint16)
    values = bfloat16_to_float32(patterns)
    again = float32_to_bfloat16(values)
    is_nan = np.isnan(values)
    np.testing.assert_array_equal(again[~is_nan], patterns[~is_nan])
    np.testing.assert_array_equal(again[is_nan], patterns[is_nan] | 0x40)  # made quiet
