"""`device.json`: what a device must know about a protected model, and nothing more.

The developer writes it, the device reads it; the file is inside a signed and sealed bundle,
but it is still parsed strictly: unknown or missing members and wrong types are errors.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from typing import Any

from triparty.common.errors import CheckpointError, FormatVersionError

TYPE = "triparty-bundle"
FORMAT_VERSION = 3
WITHOUT_HEAD = 2
"""The format version of a bundle without a head: what versions before 3 read as well."""
DTYPES = ("float64", "float32", "float16", "bfloat16")
TRANSPORTS = ("float32", "float16", "bfloat16")
HIDDEN, LOGITS = "hidden", "logits"
REPLIES = (HIDDEN, LOGITS, "topk", "id")
EMBEDDINGS = "embeddings"
TOKENS = "tokens"
INTERFACES = (EMBEDDINGS, TOKENS)
SEQ2SEQ_TASK = "seq2seq-lm"
"""Texts that answer a text, which an encoder reads whole."""
TASKS = (
    "causal-lm",
    "masked-lm",
    SEQ2SEQ_TASK,
    "sequence-classification",
    "sentence-embedding",
    "image-classification",
    "image-text-embedding",
    "image-text-to-text",
)


@dataclass(frozen=True)
class ImageInfo:
    """The images that a model takes.

    Attributes:
        channels: of a pixel.
        size: pixels on a side.
        patch: pixels on a side of a patch; each patch is keyed by itself.
        token_id: the token that stands for images in a text; None if texts contain none.
        tokens: how many of those an image takes; 0 if texts contain none.
    """

    channels: int
    size: int
    patch: int
    token_id: int | None = None
    tokens: int = 0

    def __post_init__(self) -> None:
        """Refuses images that cannot be cut into patches or put into texts."""
        sides = (self.channels, self.size, self.patch)
        if not all(type(n) is int and 0 < n < 2**15 for n in sides) or self.size % self.patch:
            raise CheckpointError(
                f"device.json: an image has channels, a size and a patch that divides it, "
                f"got {sides}"
            )
        counted = type(self.tokens) is int and 0 <= self.tokens < 2**31
        if not counted or (self.tokens > 0) != (self.token_id is not None):
            raise CheckpointError(
                f"device.json: an image takes tokens in a text if one stands for it, "
                f"got {self.tokens} of {self.token_id}"
            )


@dataclass(frozen=True)
class HeadInfo:
    """The head of a model whose devices have it; its cloud has none.

    Attributes:
        softcap: c of logits c tanh(x / c); None if the model does not bound its logits.
    """

    softcap: float | None = None

    def __post_init__(self) -> None:
        """Refuses a bound that is none."""
        cap = self.softcap
        if cap is not None and not (type(cap) in (int, float) and 0 < cap < float("inf")):
            raise CheckpointError(
                f"device.json: 'softcap' bounds logits by a positive number, got {cap!r}"
            )


@dataclass(frozen=True)
class DeviceInfo:
    """What `device.json` says.

    Attributes:
        family: the model's architecture, as `model_type` in its configuration.
        task: what the model answers: one of `TASKS`.
        interface: what travels: `embeddings`, keyed rows to the cloud and keyed replies back;
            `tokens`, keyed ids both ways, chosen by the cloud.
        width: D, elements of a row.
        vocabulary: V, rows of the table; a padded head counts. 0 if the model takes no text.
        outputs: elements of an answer: V of a language model, labels, a sentence's width.
        max_positions: longest session, in tokens.
        positions: whether the device adds learned positions to its rows.
        segments: types of which the device adds a row to each (BERT: 2); 0 if it adds none.
        image: the images that the model takes, if it takes any.
        dtype: of the rows in the bundle: one of `DTYPES`.
        transport: of the rows on the wire.
        bos_id: the model's begin-of-text token, if it has one; the tokenizer adds it to a text
            where the model wants it. Of a `seq2seq-lm` the token that answers begin with.
        eos_ids: tokens after which generation stops.
        pad_id: padding token, if the model has one.
        chat_template: Jinja template of a conversation, if the model has one.
        replies: kinds of reply about rows that the model's owner lets a device ask for; none
            for `tokens`, which sends no rows.
        epoch: generation of the key; rows of one epoch mean nothing to another's model.
        head: the head, if the device makes logits of hidden states; None if the cloud does.
    """

    family: str
    task: str
    interface: str
    width: int
    vocabulary: int
    outputs: int
    max_positions: int
    positions: bool
    segments: int
    image: ImageInfo | None
    dtype: str
    transport: str
    bos_id: int | None
    eos_ids: tuple[int, ...]
    pad_id: int | None
    chat_template: str | None
    replies: tuple[str, ...]
    epoch: int
    head: HeadInfo | None = None

    def __post_init__(self) -> None:
        """Refuses values that no bundle can have."""
        sizes = (self.width, self.outputs, self.max_positions, self.epoch)
        if not all(0 < size < 2**31 for size in sizes):
            raise CheckpointError(
                f"device.json: width, outputs, max_positions and epoch must be positive "
                f"32-bit numbers, got {sizes}"
            )
        if not all(0 <= size < 2**31 for size in (self.vocabulary, self.segments)):
            raise CheckpointError(
                f"device.json: vocabulary and segments must be 32-bit numbers, "
                f"got {self.vocabulary} and {self.segments}"
            )
        if self.task not in TASKS:
            raise CheckpointError(
                f"device.json: task must be one of {', '.join(TASKS)}, got {self.task!r}"
            )
        if self.dtype not in DTYPES or self.transport not in TRANSPORTS:
            raise CheckpointError(
                f"device.json: dtype must be one of {', '.join(DTYPES)}, transport one of "
                f"{', '.join(TRANSPORTS)}, got {self.dtype!r} and {self.transport!r}"
            )
        if self.interface not in INTERFACES:
            raise CheckpointError(
                f"device.json: this version reads the interfaces {' and '.join(INTERFACES)}, "
                f"got {self.interface!r}"
            )
        if self.interface == TOKENS:
            self._check_tokens()
        elif not self.replies or not set(self.replies) <= set(REPLIES):
            raise CheckpointError(
                f"device.json: replies must be among {', '.join(REPLIES)}, got {self.replies}"
            )
        if self.head is not None:
            self._check_head()
        image_id = None if self.image is None else self.image.token_id
        given = (self.bos_id, self.pad_id, image_id, *self.eos_ids)
        ids = [n for n in given if n is not None]
        if not all(type(n) is int and 0 <= n < self.vocabulary for n in ids):
            raise CheckpointError(
                f"device.json: special ids must be below {self.vocabulary}, got {ids}"
            )

    def _check_tokens(self) -> None:
        if self.replies or self.positions:
            raise CheckpointError(
                f"device.json: a bundle of the interface {TOKENS!r} has neither replies nor "
                f"positions, got {self.replies} and {self.positions}"
            )

    def _check_head(self) -> None:
        if self.replies != (HIDDEN,) or self.outputs != self.vocabulary:
            raise CheckpointError(
                f"device.json: a device that has the head makes logits of its vocabulary, from "
                f"the reply {HIDDEN!r} alone; got the replies {', '.join(self.replies)} and "
                f"{self.outputs} outputs of {self.vocabulary} tokens"
            )

    @property
    def reply(self) -> str:
        """The kind of reply from which a device makes all logits."""
        return LOGITS if self.head is None else HIDDEN

    @property
    def reply_width(self) -> int:
        """Elements of that reply: O logits, or D of a hidden state."""
        return self.outputs if self.head is None else self.width

    def to_json(self) -> bytes:
        """The bytes of `device.json`; `from_json(to_json(info)) == info`."""
        members = asdict(self)
        version = FORMAT_VERSION
        if self.head is None:
            version = WITHOUT_HEAD
            del members["head"]
        document = {"type": TYPE, "format_version": version, **members}
        return json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False).encode()

    @classmethod
    def from_json(cls, data: bytes) -> DeviceInfo:
        """Reads `device.json`.

        Raises:
            FormatVersionError: written by a newer triparty.
            CheckpointError: not a description of a bundle.
        """
        try:
            document = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise CheckpointError("device.json is not JSON") from error
        if not isinstance(document, dict) or document.pop("type", None) != TYPE:
            raise CheckpointError(f"device.json: expected a document of type {TYPE!r}")
        version = document.pop("format_version", None)
        if type(version) is int and version > FORMAT_VERSION:
            raise FormatVersionError(
                f"device.json has format version {version}; this triparty reads up to "
                f"{FORMAT_VERSION}: update it"
            )
        if type(version) is not int or version < 1:
            raise CheckpointError(f"device.json: unknown format version {version!r}")
        if version == 1:  # language models alone
            document |= {"task": "causal-lm", "segments": 0, "image": None}
            document["outputs"] = document.get("vocabulary")
        if version <= WITHOUT_HEAD and "head" not in document:
            document["head"] = None
        elif version <= WITHOUT_HEAD or document.get("head") is None:
            raise CheckpointError(
                f"device.json: a head is in format version {FORMAT_VERSION} and no other, "
                f"this is {version}"
            )
        return cls(**_members(document))


_MEMBERS: dict[str, tuple[type, ...]] = {
    "family": (str,),
    "task": (str,),
    "interface": (str,),
    "width": (int,),
    "vocabulary": (int,),
    "outputs": (int,),
    "max_positions": (int,),
    "positions": (bool,),
    "segments": (int,),
    "image": (dict, type(None)),
    "dtype": (str,),
    "transport": (str,),
    "bos_id": (int, type(None)),
    "eos_ids": (list,),
    "pad_id": (int, type(None)),
    "chat_template": (str, type(None)),
    "replies": (list,),
    "epoch": (int,),
    "head": (dict, type(None)),
}
_ELEMENTS: dict[str, type] = {"eos_ids": int, "replies": str}


def _members(document: dict[str, Any]) -> dict[str, Any]:
    if set(document) != set(_MEMBERS):
        odd = ", ".join(sorted(set(document) ^ set(_MEMBERS)))
        raise CheckpointError(f"device.json: missing or unknown members: {odd}")
    read: dict[str, Any] = {}
    for name, value in document.items():
        if type(value) not in _MEMBERS[name]:
            raise CheckpointError(f"device.json: {name!r} has the wrong type")
        if name in _ELEMENTS:
            if not all(type(element) is _ELEMENTS[name] for element in value):
                raise CheckpointError(f"device.json: {name!r} has an element of a wrong type")
            value = tuple(value)
        if name == "image" and value is not None:
            value = _image(value)
        if name == "head" and value is not None:
            value = _head(value)
        read[name] = value
    return read


def _image(document: dict[str, Any]) -> ImageInfo:
    members = {field.name for field in fields(ImageInfo)}
    if set(document) != members:
        raise CheckpointError(f"device.json: an image has {', '.join(sorted(members))}")
    return ImageInfo(**document)


def _head(document: dict[str, Any]) -> HeadInfo:
    members = {field.name for field in fields(HeadInfo)}
    if set(document) != members:
        raise CheckpointError(f"device.json: a head has {', '.join(sorted(members))}")
    return HeadInfo(**document)
