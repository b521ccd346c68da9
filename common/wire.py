"""The frame: how arrays of rows travel between device and cloud.

A frame is `TPF1`, version u8, dtype u8, ndim u8, zero u8, ndim x u32 dims, payload length
u64, payload; everything little-endian. Several frames follow one another. The product of the
dims, the dtype's width and the payload length are compared with each other and with the
limit before anything is allocated, so that a hostile header costs nothing.

Law: `decode_frames(encode_frames(arrays)) == arrays`, bit for bit.

NumPy has no bfloat16: bf16 rows are carried as `Frame(BF16, uint16 array)`, and
`bfloat16_to_float32` / `float32_to_bfloat16` convert.
"""

from __future__ import annotations

import struct
import sys
from dataclasses import dataclass
from enum import IntEnum
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from triparty.common.errors import FrameError, TooLargeError

MAGIC = b"TPF1"
FRAME_VERSION = 1
MAX_DIMS = 4
MEDIA_TYPE = "application/vnd.triparty.frame"
_HEADER = struct.Struct("<4sBBBB")
_LENGTH = struct.Struct("<Q")


class DType(IntEnum):
    """The element types of a frame, with their codes on the wire."""

    F32 = 0
    F16 = 1
    BF16 = 2
    I32 = 3
    I64 = 4

    @property
    def storage(self) -> np.dtype[Any]:
        """The NumPy dtype of the elements as stored; uint16 for bf16."""
        return _STORAGE[self]


_STORAGE: dict[DType, np.dtype[Any]] = {
    DType.F32: np.dtype("<f4"),
    DType.F16: np.dtype("<f2"),
    DType.BF16: np.dtype("<u2"),
    DType.I32: np.dtype("<i4"),
    DType.I64: np.dtype("<i8"),
}


@dataclass(frozen=True, eq=False)
class Frame:
    """One array on the wire.

    Attributes:
        dtype: element type.
        array: the elements, at most 4 dimensions, in `dtype.storage`.
    """

    dtype: DType
    array: NDArray[Any]

    def __post_init__(self) -> None:
        """Refuses arrays that the wire cannot carry."""
        if self.array.dtype != self.dtype.storage:
            raise FrameError(
                f"a {self.dtype.name} frame holds {self.dtype.storage} elements, "
                f"got {self.array.dtype}"
            )
        if self.array.ndim > MAX_DIMS:
            raise FrameError(
                f"a frame has at most {MAX_DIMS} dimensions, got {self.array.ndim}"
            )
        if any(n >= 2**32 for n in self.array.shape):
            raise FrameError(f"a frame's dims are 32-bit, got {self.array.shape}")

    @classmethod
    def of(cls, array: NDArray[Any]) -> Frame:
        """The frame of a float32, float16, int32 or int64 array."""
        for dtype, storage in _STORAGE.items():
            if dtype is not DType.BF16 and array.dtype == storage:
                return cls(dtype, np.asarray(array, order="C"))
        raise FrameError(
            f"no frame dtype for {array.dtype}: expected float32, float16, int32 or int64"
        )

    @classmethod
    def rounded(cls, values: NDArray[np.float32], dtype: DType) -> Frame:
        """The frame of floating-point numbers, rounded to a floating-point dtype."""
        if dtype is DType.BF16:
            return cls(dtype, float32_to_bfloat16(values))
        return cls(dtype, values.astype(dtype.storage))

    def as_float32(self) -> NDArray[np.float32]:
        """The elements of a floating-point frame as float32."""
        if self.dtype is DType.BF16:
            return bfloat16_to_float32(self.array)
        if self.dtype in (DType.F32, DType.F16):
            return self.array.astype(np.float32)
        raise FrameError(f"expected a floating-point frame, got {self.dtype.name}")


def bfloat16_to_float32(bits: NDArray[np.uint16]) -> NDArray[np.float32]:
    """The float32 values of bfloat16 bit patterns; exact."""
    wide = bits.astype(np.uint32)
    wide <<= 16
    return wide.view(np.float32)


def float32_to_bfloat16(values: NDArray[np.float32]) -> NDArray[np.uint16]:
    """The bfloat16 bit patterns nearest to float32 values, ties to even; NaN stays NaN."""
    bits = np.asarray(values, dtype=np.float32, order="C").view(np.uint32)
    rounded = np.empty_like(bits)
    np.right_shift(bits, 16, out=rounded)
    rounded &= 1
    rounded += 0x7FFF
    rounded += bits  # wraps around for some NaN
    rounded >>= 16
    nan = np.isnan(values)
    if nan.any():
        rounded[nan] = (bits[nan] >> 16) | 0x40
    return rounded.astype(np.uint16)


def encode_frame(frame: Frame) -> bytes:
    """The bytes of one frame."""
    array = np.ascontiguousarray(frame.array)
    shape = frame.array.shape
    header = _HEADER.pack(MAGIC, FRAME_VERSION, frame.dtype, len(shape), 0)
    dims = struct.pack(f"<{len(shape)}I", *shape)
    return header + dims + _LENGTH.pack(array.nbytes) + array.tobytes()


def encode_frames(*frames: Frame) -> bytes:
    """The bytes of several frames, one after another."""
    return b"".join(encode_frame(frame) for frame in frames)


def decode_frames(data: bytes, *, limit_bytes: int, max_frames: int = 8) -> list[Frame]:
    """The frames in a body, checked before anything is allocated.

    Args:
        data: the whole body.
        limit_bytes: most payload bytes that all frames together may have.
        max_frames: most frames that the body may have.

    Returns:
        At least one frame. The arrays are read-only views of `data`.

    Raises:
        FrameError: the bytes are not frames; the message names the field.
        TooLargeError: the payload is over `limit_bytes`.
    """
    frames: list[Frame] = []
    at, held = 0, 0
    while at < len(data) or not frames:
        if len(frames) == max_frames:
            raise FrameError(f"expected at most {max_frames} frames in a body")
        frame, at = _decode_one(data, at, limit_bytes - held)
        held += frame.array.nbytes
        frames.append(frame)
    return frames


def _decode_one(data: bytes, at: int, limit_bytes: int) -> tuple[Frame, int]:
    if len(data) - at < _HEADER.size:
        raise FrameError(f"a frame's header has {_HEADER.size} bytes, got {len(data) - at}")
    magic, version, code, ndim, zero = _HEADER.unpack_from(data, at)
    at += _HEADER.size
    if magic != MAGIC:
        raise FrameError(f"expected magic {MAGIC!r}, got {magic!r}")
    if version != FRAME_VERSION:
        raise FrameError(f"expected frame version {FRAME_VERSION}, got {version}")
    if code not in DType.__members__.values():
        raise FrameError(f"unknown frame dtype {code}: expected 0 to {max(DType)}")
    if ndim > MAX_DIMS:
        raise FrameError(f"a frame has at most {MAX_DIMS} dimensions, got {ndim}")
    if zero != 0:
        raise FrameError(f"expected a zero byte after ndim, got {zero}")
    if len(data) - at < 4 * ndim + _LENGTH.size:
        raise FrameError("the frame ends inside its header")
    shape = struct.unpack_from(f"<{ndim}I", data, at)
    (length,) = _LENGTH.unpack_from(data, at + 4 * ndim)
    at += 4 * ndim + _LENGTH.size
    dtype = DType(code)
    expected = prod(shape) * dtype.storage.itemsize  # Python integers: cannot overflow
    if length != expected:
        raise FrameError(f"shape {shape} of {dtype.name} has {expected} bytes, not {length}")
    if prod(max(n, 1) for n in shape) * dtype.storage.itemsize > sys.maxsize:
        raise FrameError(f"no array has shape {shape}")  # empty, but NumPy refuses its strides
    if length > limit_bytes:
        raise TooLargeError(f"the frame's payload has {length} bytes, limit {limit_bytes}")
    if len(data) - at < length:
        raise FrameError(f"the payload ends after {len(data) - at} of {length} bytes")
    array = np.frombuffer(data, dtype.storage, count=prod(shape), offset=at).reshape(shape)
    return Frame(dtype, array), at + length
