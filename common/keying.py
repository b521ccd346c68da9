"""What developer and device do with a bundle: look up keyed rows, read a keyed reply.

A bundle (`OUT/device`) is what one device needs to use a protected model: `device.json`,
`head.safetensors` (how the answer is undone) and the tokenizer; for the interface
`embeddings` also `embedding.safetensors` (`rows` (V, D) and, where the family adds them,
`positions` (P, D) and `types` (S, D); all keyed already, so that the device never holds the
key). With the interface `tokens` the cloud has the rows, and the device sends keyed ids. The
cloud may not import this module.

`head.safetensors` has one of

- `order` (O,) int32: `plain[..., i] == reply[..., order[i]]`; with `scales` (O,) float32, by
  keyed place, each reply is divided by its scale first;
- `weight` (O, O) float64: `plain == reply @ weight.T`;
- the head itself, where `device.json` names one: the reply is the hidden state (..., D) then,
  and `device_head.py` makes logits of it;

and, for `tokens` where the answer is not about the vocabulary, `vocabulary_order` (V,) int32.

A model that takes images adds `patches.safetensors`: `mix` (P, P) float64, by which the
P = C p^2 pixels of each patch are multiplied; and `preprocessor_config.json`, how an image
becomes pixels. `labels.json` names the answers of a classifier, in their plain order;
`encoding.json` (`encodinginfo.py`) says how texts are cut and answers are read.

Laws: `keyed_ids(i) == order[i]` and `plain_ids(order[i]) == i` (of the vocabulary).

Keyed and plain arrays have different types (`KeyedRows`, `KeyedIds`, `KeyedReply`,
`PlainLogits`), so that a type checker refuses to send something unkeyed or to sample from
something keyed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NewType

import numpy as np
from numpy.typing import NDArray

from triparty.common.device_head import DeviceHead
from triparty.common.deviceinfo import EMBEDDINGS, TOKENS, DeviceInfo, ImageInfo
from triparty.common.encodinginfo import EncodingInfo
from triparty.common.errors import CheckpointError, RequestError
from triparty.common.tensorfile import TensorFile, as_float32, as_float64
from triparty.common.wire import DType, Frame

KeyedRows = NewType("KeyedRows", Frame)
KeyedIds = NewType("KeyedIds", np.ndarray[Any, np.dtype[np.int64]])
KeyedPixels = NewType("KeyedPixels", np.ndarray[Any, np.dtype[np.floating[Any]]])
KeyedReply = NewType("KeyedReply", np.ndarray[Any, np.dtype[np.float32]])
PlainLogits = NewType("PlainLogits", np.ndarray[Any, np.dtype[np.float32]])

DEVICE_FILE = "device.json"
EMBEDDING_FILE = "embedding.safetensors"
HEAD_FILE = "head.safetensors"
PATCHES_FILE = "patches.safetensors"
PREPROCESSOR_FILE = "preprocessor_config.json"
LABELS_FILE = "labels.json"
ENCODING_FILE = "encoding.json"
TOKENIZER_FILE = "tokenizer.json"
TOKENIZER_CONFIG_FILE = "tokenizer_config.json"
VOCABULARY_ORDER = "vocabulary_order"
_FORMAT_NAMES = {"float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16"}


@dataclass(frozen=True, eq=False)
class Bundle:
    """An opened bundle; its rows, if it has some, stay on disk, memory-mapped.

    Attributes:
        folder: where it lies.
        info: what `device.json` says.
    """

    folder: Path
    info: DeviceInfo
    _tables: Mapping[str, NDArray[Any]]
    _answers: _Answers | DeviceHead
    _order: NDArray[np.int64]
    _plain: NDArray[np.int64]
    _mix: NDArray[np.float64] | None = None

    @classmethod
    def open(cls, folder: Path) -> Bundle:
        """Opens a bundle and checks its files against each other.

        Raises:
            CheckpointError: a file is missing or contradicts `device.json`.
            FormatVersionError: made by a newer triparty.
            FileTypeError: a tensor file is broken.
        """
        info = DeviceInfo.from_json(_file(folder, DEVICE_FILE).read_bytes())
        tables: dict[str, NDArray[Any]] = {}
        if info.interface == EMBEDDINGS and info.vocabulary:
            embedding = TensorFile.open(_file(folder, EMBEDDING_FILE))
            for name, rows in _table_rows(info).items():
                tables[name] = _tensor(embedding, name, info.dtype, (rows, info.width))
        head = TensorFile.open(_file(folder, HEAD_FILE))
        answers = _read_answers(head, info, tables)
        order = np.arange(info.vocabulary)
        if VOCABULARY_ORDER in head.entries:
            order = _order(head, VOCABULARY_ORDER, info.vocabulary)
        elif (
            isinstance(answers, _Answers)
            and answers.order is not None
            and info.outputs == info.vocabulary
        ):
            order = answers.order
        elif info.interface == TOKENS:
            raise CheckpointError(f"{head.path}: expected {VOCABULARY_ORDER!r}, it is missing")
        mix = None if info.image is None else _mix(folder, info.image)
        return cls(folder, info, tables, answers, order, np.argsort(order), mix)

    @property
    def head(self) -> DeviceHead | None:
        """The head, if the device has it."""
        return self._answers if isinstance(self._answers, DeviceHead) else None

    @property
    def tokenizer_file(self) -> Path:
        """The tokenizer, in the form that the `tokenizers` package reads."""
        return self.folder / TOKENIZER_FILE

    def rows(
        self,
        ids: NDArray[np.int64],
        *,
        start: int,
        types: NDArray[np.int64] | None = None,
        images: bool = False,
    ) -> KeyedRows:
        """The keyed rows of token ids, ready for the wire.

        Args:
            ids: (T,) plain token ids.
            start: position of the first one in its session; keyed positions are added in
                families that have learned ones.
            types: (T,) the type of each token in families that have some; None: all 0.
            images: whether images are sent along: the rows of the token that stands for
                them are zeros then, where the cloud puts the images'.

        Returns:
            (T, D) in the bundle's transport dtype.

        Raises:
            RequestError: an id or a type that the bundle has no row of, positions past the
                last one, or a bundle of the interface `tokens`, which has no rows.
        """
        taken = self._taken(ids, start, types, images)
        info = self.info
        if len(taken) == 1:
            return KeyedRows(_frame(taken[0], info.dtype, info.transport))
        total = self._sum(taken).astype(np.float32)
        return KeyedRows(_frame(total.view("<u4"), "float32", info.transport))

    def values(
        self,
        ids: NDArray[np.int64],
        *,
        start: int,
        types: NDArray[np.int64] | None = None,
        images: bool = False,
    ) -> NDArray[np.floating[Any]]:
        """The keyed rows (T, D) of token ids as numbers, float64 if the tables are.

        What `rows` sends, before it is rounded for the wire.
        """
        return self._sum(self._taken(ids, start, types, images))

    def _sum(self, taken: list[NDArray[Any]]) -> NDArray[np.floating[Any]]:
        stored = _FORMAT_NAMES[self.info.dtype]
        read = as_float64 if stored == "F64" else as_float32
        total: NDArray[np.floating[Any]] = sum(
            (read(bits, stored) for bits in taken[1:]), start=read(taken[0], stored)
        )
        return total

    def _taken(
        self, ids: NDArray[np.int64], start: int, types: NDArray[np.int64] | None, images: bool
    ) -> list[NDArray[Any]]:
        """The bit patterns of what is added up."""
        if "rows" not in self._tables:
            what = "keyed ids" if self.info.interface == TOKENS else "images"
            raise RequestError(f"this bundle has no rows: send {what}")
        self._check(ids, start)
        rows = self._tables["rows"][ids]
        if images:
            rows[ids == self._image_token()] = 0
        taken = [rows]
        if "types" in self._tables:
            types = np.zeros(len(ids), np.int64) if types is None else types
            _check_types(types, len(ids), self.info.segments)
            taken.append(self._tables["types"][types])
        elif types is not None and types.any():
            raise RequestError("this model has no token types")
        if "positions" in self._tables:
            taken.append(self._tables["positions"][start : start + len(ids)])
        return taken

    def _image_token(self) -> int:
        image = self.info.image
        if image is None or image.token_id is None:
            raise RequestError("this model takes no images in its texts")
        return image.token_id

    def keyed_ids(self, ids: NDArray[np.int64]) -> KeyedIds:
        """The keyed ids (T,) of the token ids (T,) of a text, as `tokens` sends them.

        Raises:
            RequestError: an id outside the vocabulary, or more than the model has positions.
        """
        self._check(ids, 0)
        return KeyedIds(self._order[ids])

    def pixels(self, pixels: NDArray[np.floating[Any]]) -> KeyedPixels:
        """An image, the pixels of each patch mixed among themselves, ready for the wire.

        Args:
            pixels: (C, S, S) as `preprocessor_config.json` makes them of an image.

        Returns:
            (C, S, S) float32, or float64 if the pixels are.

        Raises:
            RequestError: an image of another size, or a model that takes none.
        """
        image = self.info.image
        if image is None or self._mix is None:
            raise RequestError("this model takes no images")
        expected = (image.channels, image.size, image.size)
        if pixels.shape != expected or not np.issubdtype(pixels.dtype, np.floating):
            raise RequestError(
                f"expected pixels {expected} of floating point numbers, "
                f"got {pixels.shape} {pixels.dtype}"
            )
        mixed = _uncut(_cut(pixels, image) @ self._mix, image)
        dtype = np.float64 if pixels.dtype == np.float64 else np.float32
        return KeyedPixels(np.ascontiguousarray(mixed, dtype))

    def labels(self) -> tuple[str, ...]:
        """The names of the answers (O,) of a classifier; none for another model.

        Raises:
            CheckpointError: not one name per answer.
        """
        path = self.folder / LABELS_FILE
        if not path.is_file():
            return ()
        try:
            names = json.loads(path.read_bytes())
        except (ValueError, RecursionError) as error:
            raise CheckpointError(f"{path} is not JSON") from error
        if (
            not isinstance(names, list)
            or len(names) != self.info.outputs
            or not all(type(name) is str for name in names)
        ):
            raise CheckpointError(f"{path}: expected a list of {self.info.outputs} names")
        return tuple(names)

    def encoding(self) -> EncodingInfo:
        """How texts are cut, and answers read, for an encoder.

        Raises:
            CheckpointError: the file is damaged.
        """
        path = self.folder / ENCODING_FILE
        return EncodingInfo.from_json(path.read_bytes()) if path.is_file() else EncodingInfo()

    def preprocessing(self) -> dict[str, Any]:
        """How an image becomes pixels; empty if the model's owner does not say.

        Raises:
            CheckpointError: the file is damaged.
        """
        path = self.folder / PREPROCESSOR_FILE
        if not path.is_file():
            return {}
        try:
            document = json.loads(path.read_bytes())
        except (ValueError, RecursionError) as error:
            raise CheckpointError(f"{path} is not JSON") from error
        if not isinstance(document, dict):
            raise CheckpointError(f"{path} is not a JSON object")
        return document

    def plain_logits(self, reply: KeyedReply) -> PlainLogits:
        """The answer in the plain order: logits of the tokenizer's ids, of labels.

        Args:
            reply: (..., O) as the cloud sent it; (..., D) hidden states after the final
                norm where the device has the head.

        Raises:
            RequestError: the last axis has another length.
        """
        info = self.info
        if not reply.ndim or reply.shape[-1] != info.reply_width:
            raise RequestError(
                f"expected {info.reply} (..., {info.reply_width}), got {reply.shape}"
            )
        return PlainLogits(self._answers.plain(reply))

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


def _mix(folder: Path, image: ImageInfo) -> NDArray[np.float64]:
    size = image.channels * image.patch**2
    file = TensorFile.open(_file(folder, PATCHES_FILE))
    return as_float64(_tensor(file, "mix", "float64", (size, size)), "F64")


def _cut(pixels: NDArray[Any], image: ImageInfo) -> NDArray[np.float64]:
    """The patches (N, P) of an image (C, S, S), their pixels as `Conv2d` weights lie."""
    side = image.size // image.patch
    blocks = pixels.reshape(image.channels, side, image.patch, side, image.patch)
    return blocks.transpose(1, 3, 0, 2, 4).reshape(side**2, -1).astype(np.float64)


def _uncut(patches: NDArray[np.float64], image: ImageInfo) -> NDArray[np.float64]:
    """The image (C, S, S) of its patches (N, P)."""
    side = image.size // image.patch
    blocks = patches.reshape(side, side, image.channels, image.patch, image.patch)
    return blocks.transpose(2, 0, 3, 1, 4).reshape(image.channels, image.size, image.size)


@dataclass(frozen=True, eq=False)
class _Answers:
    """How a keyed answer is undone; see the module's text."""

    order: NDArray[np.int64] | None
    scales: NDArray[np.float32] | None
    weight: NDArray[np.float64] | None

    @classmethod
    def read(cls, file: TensorFile, outputs: int) -> _Answers:
        """Reads and checks `head.safetensors`."""
        if "weight" in file.entries:
            bits = _tensor(file, "weight", "float64", (outputs, outputs))
            return cls(None, None, as_float64(bits, "F64"))
        order, scales = _order(file, "order", outputs), None
        if "scales" in file.entries:
            scales = as_float32(_tensor(file, "scales", "float32", (outputs,)), "F32")
            if not (np.isfinite(scales) & (scales != 0)).all():
                raise CheckpointError(f"{file.path}: 'scales' holds zero, NaN or infinity")
        return cls(order, scales, None)

    def plain(self, reply: NDArray[Any]) -> NDArray[Any]:
        if self.weight is not None:
            mixed: NDArray[Any] = reply @ self.weight.T.astype(reply.dtype)
            return mixed
        undone: NDArray[Any] = reply if self.scales is None else reply / self.scales
        return undone if self.order is None else undone[..., self.order]


def _read_answers(
    file: TensorFile, info: DeviceInfo, tables: Mapping[str, NDArray[Any]]
) -> _Answers | DeviceHead:
    """How the answers of a bundle are read; checks `head.safetensors`."""
    if info.head is None:
        return _Answers.read(file, info.outputs)
    return DeviceHead.read(
        file,
        shape=(info.vocabulary, info.width),
        softcap=info.head.softcap,
        rows=tables["rows"],
        rows_dtype=_FORMAT_NAMES[info.dtype],
    )


def _table_rows(info: DeviceInfo) -> dict[str, int]:
    """The tables of a bundle and how many rows each has."""
    tables = {"rows": info.vocabulary}
    if info.positions:
        tables["positions"] = info.max_positions
    if info.segments:
        tables["types"] = info.segments
    return tables


def _check_types(types: NDArray[np.int64], length: int, segments: int) -> None:
    if types.shape != (length,) or not np.issubdtype(types.dtype, np.integer):
        raise RequestError(f"expected types ({length},) of integers, got {types.shape}")
    if types.size and not 0 <= types.min() <= types.max() < segments:
        raise RequestError(f"expected token types from 0 to {segments - 1}")


def _order(file: TensorFile, name: str, size: int) -> NDArray[np.int64]:
    order = _tensor(file, name, "int32", (size,)).view("<i4").astype(np.int64)
    seen = np.zeros(size, dtype=bool)
    inside = order[(order >= 0) & (order < size)]
    seen[inside] = True
    if not seen.all():
        raise CheckpointError(f"{file.path}: {name!r} is not a permutation of {size} places")
    return order


def _frame(bits: NDArray[Any], dtype: str, transport: str) -> Frame:
    """A frame of `transport` elements from bit patterns of `dtype` elements."""
    code = {"float32": DType.F32, "float16": DType.F16, "bfloat16": DType.BF16}[transport]
    if dtype == transport:
        return Frame(code, np.ascontiguousarray(bits).view(code.storage))
    values = as_float32(bits, _FORMAT_NAMES[dtype])
    return Frame.rounded(values, code)
