"""What developer and device do with a bundle: look up keyed rows, read a keyed reply.

A bundle (`OUT/device`) is what one device needs to use a protected model: `device.json`,
`head.safetensors` (`order` (V,)) and the tokenizer; for the interface `embeddings` also
`embedding.safetensors` (`rows` (V, D) and, where the family adds positions, `positions`
(P, D); both keyed already, so that the device never holds the key). With the interface
`tokens` the cloud has the rows, and the device sends keyed ids. The cloud may not import
this module.

Laws: `plain_logits(reply)[..., i] == reply[..., order[i]]`, `keyed_ids(i) == order[i]` and
`plain_ids(order[i]) == i`.

Keyed and plain arrays have different types (`KeyedRows`, `KeyedIds`, `KeyedReply`,
`PlainLogits`), so that a type checker refuses to send something unkeyed or to sample from
something keyed.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NewType

import numpy as np
from numpy.typing import NDArray

from triparty.common.deviceinfo import EMBEDDINGS, TOKENS, DeviceInfo
from triparty.common.errors import CheckpointError, RequestError
from triparty.common.tensorfile import TensorFile, as_float32
from triparty.common.wire import DType, Frame, float32_to_bfloat16

KeyedRows = NewType("KeyedRows", Frame)
KeyedIds = NewType("KeyedIds", np.ndarray[Any, np.dtype[np.int64]])
KeyedReply = NewType("KeyedReply", np.ndarray[Any, np.dtype[np.float32]])
PlainLogits = NewType("PlainLogits", np.ndarray[Any, np.dtype[np.float32]])

DEVICE_FILE = "device.json"
EMBEDDING_FILE = "embedding.safetensors"
HEAD_FILE = "head.safetensors"
TOKENIZER_FILE = "tokenizer.json"
TOKENIZER_CONFIG_FILE = "tokenizer_config.json"
_FORMAT_NAMES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}


@dataclass(frozen=True, eq=False)
class Bundle:
    """An opened bundle; its rows, if it has some, stay on disk, memory-mapped.

    Attributes:
        folder: where it lies.
        info: what `device.json` says.
    """

    folder: Path
    info: DeviceInfo
    _rows: NDArray[Any] | None
    _positions: NDArray[Any] | None
    _order: NDArray[np.int64]
    _plain: NDArray[np.int64]

    @classmethod
    def open(cls, folder: Path) -> Bundle:
        """Opens a bundle and checks its files against each other.

        Raises:
            CheckpointError: a file is missing or contradicts `device.json`.
            FormatVersionError: made by a newer triparty.
            FileTypeError: a tensor file is broken.
        """
        info = DeviceInfo.from_json(_file(folder, DEVICE_FILE).read_bytes())
        rows = positions = None
        if info.interface == EMBEDDINGS:
            embedding = TensorFile.open(_file(folder, EMBEDDING_FILE))
            rows = _tensor(embedding, "rows", info.dtype, (info.vocabulary, info.width))
            if info.positions:
                shape = (info.max_positions, info.width)
                positions = _tensor(embedding, "positions", info.dtype, shape)
        head = TensorFile.open(_file(folder, HEAD_FILE))
        order = _order(head, info.vocabulary)
        return cls(folder, info, rows, positions, order, np.argsort(order))

    @property
    def tokenizer_file(self) -> Path:
        """The tokenizer, in the form that the `tokenizers` package reads."""
        return self.folder / TOKENIZER_FILE

    def rows(self, ids: NDArray[np.int64], *, start: int) -> KeyedRows:
        """The keyed rows of token ids, ready for the wire.

        Args:
            ids: (T,) plain token ids.
            start: position of the first one in its session; keyed positions are added in
                families that have learned ones.

        Returns:
            (T, D) in the bundle's transport dtype.

        Raises:
            RequestError: an id outside the vocabulary, positions past the last one, or a
                bundle of the interface `tokens`, which has no rows.
        """
        if self._rows is None:
            raise RequestError(
                f"a bundle of the interface {TOKENS!r} has no rows: send keyed ids"
            )
        self._check(ids, start)
        taken = self._rows[ids]
        if self._positions is None:
            return KeyedRows(_frame(taken, self.info.dtype, self.info.transport))
        placed = self._positions[start : start + len(ids)]
        stored = _FORMAT_NAMES[self.info.dtype]
        total = as_float32(taken, stored) + as_float32(placed, stored)
        return KeyedRows(_frame(total.view("<u4"), "float32", self.info.transport))

    def keyed_ids(self, ids: NDArray[np.int64]) -> KeyedIds:
        """The keyed ids (T,) of the token ids (T,) of a text, as `tokens` sends them.

        Raises:
            RequestError: an id outside the vocabulary, or more than the model has positions.
        """
        self._check(ids, 0)
        return KeyedIds(self._order[ids])

    def plain_logits(self, reply: KeyedReply) -> PlainLogits:
        """The logits in the tokenizer's order.

        Args:
            reply: (..., V) float32 as the cloud sent them.

        Raises:
            RequestError: the last axis is not the vocabulary.
        """
        if not reply.ndim or reply.shape[-1] != self.info.vocabulary:
            raise RequestError(
                f"expected logits (..., {self.info.vocabulary}), got {reply.shape}"
            )
        return PlainLogits(reply[..., self._order])

    def plain_ids(self, ids: NDArray[Any]) -> NDArray[np.int64]:
        """The token ids behind keyed ids (replies `topk` and `id`), any shape.

        Raises:
            RequestError: an id outside the vocabulary.
        """
        if ids.size and not 0 <= ids.min() <= ids.max() < self.info.vocabulary:
            raise RequestError(f"expected keyed ids below {self.info.vocabulary}")
        plain: NDArray[np.int64] = self._plain[ids]
        return plain

    def _check(self, ids: NDArray[np.int64], start: int) -> None:
        info = self.info
        if ids.ndim != 1 or not np.issubdtype(ids.dtype, np.integer):
            raise RequestError(f"expected ids (T,) of integers, got {ids.shape} {ids.dtype}")
        if ids.size and not 0 <= ids.min() <= ids.max() < info.vocabulary:
            raise RequestError(
                f"expected token ids from 0 to {info.vocabulary - 1}, "
                f"got {ids.min()} to {ids.max()}"
            )
        if start < 0 or start + len(ids) > info.max_positions:
            raise RequestError(
                f"the model has {info.max_positions} positions; "
                f"{len(ids)} tokens from position {start} do not fit: shorten the text"
            )


def _file(folder: Path, name: str) -> Path:
    if not (folder / name).is_file():
        raise CheckpointError(f"{folder} is no bundle: it has no {name}")
    return folder / name


def _tensor(file: TensorFile, name: str, dtype: str, shape: tuple[int, ...]) -> NDArray[Any]:
    entry = file.entries.get(name)
    expected = f"{name!r} {_FORMAT_NAMES.get(dtype, 'I32')} {list(shape)}"
    if entry is None:
        raise CheckpointError(f"{file.path}: expected {expected}, it is missing")
    if (entry.dtype, entry.shape) != (_FORMAT_NAMES.get(dtype, "I32"), shape):
        raise CheckpointError(
            f"{file.path}: expected {expected}, got {entry.dtype} {list(entry.shape)}"
        )
    return file.bits(name)


def _order(file: TensorFile, vocabulary: int) -> NDArray[np.int64]:
    order = _tensor(file, "order", "int32", (vocabulary,)).view("<i4").astype(np.int64)
    seen = np.zeros(vocabulary, dtype=bool)
    inside = order[(order >= 0) & (order < vocabulary)]
    seen[inside] = True
    if not seen.all():
        raise CheckpointError(f"{file.path}: 'order' is not a permutation of the vocabulary")
    return order


def _frame(bits: NDArray[Any], dtype: str, transport: str) -> Frame:
    """A frame of `transport` elements from bit patterns of `dtype` elements."""
    code = {"float32": DType.F32, "float16": DType.F16, "bfloat16": DType.BF16}[transport]
    if dtype == transport:
        return Frame(code, np.ascontiguousarray(bits).view(code.storage))
    values = as_float32(bits, _FORMAT_NAMES[dtype])
    if code is DType.BF16:
        return Frame(code, float32_to_bfloat16(values))
    return Frame(code, values.astype(code.storage))
