"""The seam between serving and whatever runs a model: rows or ids in, replies out.

Serving (sessions, scheduling, HTTP) knows a model only as a `Decoder` and by its worker
(`worker.Tasks`). `local.py` implements an `Engine`, a decoder that a worker of this process
drives; `replicas.py` is decoder and worker at once for models in other processes, and pins a
session to the replica that holds its cache. An `Encoder` runs whole texts and images and keeps
nothing between them; `encoding.py` implements it in this process.

Engines and encoders are called by one thread at a time. An engine needs no bookkeeping of its
own to survive failures: every piece of work says at which position its rows begin, and what a
session's cache holds from there on (rows of a failed batch, of a cancelled step, or taken back)
is replaced.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from triparty.cloud.serving.text import TextRules
from triparty.common.errors import RequestError

Rows = NDArray[np.float32]
"""Embedding rows of one session, shape (T, D)."""

Ids = NDArray[np.int64]
"""Keyed token ids of one session, shape (T,): the hosted table has their rows."""

Inputs = Rows | Ids
"""What a session sends: rows, or ids of a model whose `ModelInfo.text` is not None."""

Arrays = tuple[NDArray[Any], ...]
"""A reply: the arrays of its frames, in order."""

NUMBER_BYTES = 4
"""Of each element of a reply."""


class ReplyKind(StrEnum):
    """What a device may ask for about the last rows of a step."""

    HIDDEN = "hidden"
    LOGITS = "logits"
    TOPK = "topk"
    ID = "id"


@dataclass(frozen=True)
class Reply:
    """What to answer about the last N rows of a step.

    Attributes:
        kind: `hidden` (N, D) after the final norm; `logits` (N, V); `topk` values (N, K) and
            their int32 indices (N, K), largest first; `id` (N,) the int32 argmax.
        k: how many values `topk` has; 0 for the others.
        rows: N, at least 1.
    """

    kind: ReplyKind
    k: int = 0
    rows: int = 1

    @classmethod
    def parse(cls, text: str) -> Self:
        """The reply that a `Triparty-Reply` header asks for.

        Raises:
            RequestError: not one of `hidden`, `logits`, `topk=K`, `id`.
        """
        name, equals, count = text.partition("=")
        if name == ReplyKind.TOPK and _is_count(count):
            return cls(ReplyKind.TOPK, int(count))
        if name in (ReplyKind.HIDDEN, ReplyKind.LOGITS, ReplyKind.ID) and not equals:
            return cls(ReplyKind(name))
        raise RequestError(
            f"Triparty-Reply is hidden, logits, topk=K (K at least 1) or id, got {text[:40]!r}"
        )


def _is_count(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 10 and int(text) > 0


@dataclass(frozen=True)
class ModelInfo:
    """What serving must know of a loaded model.

    Attributes:
        family: the configuration's `model_type`.
        width: columns D of the rows.
        vocabulary: columns V of the logits.
        positions: most rows that a sequence may have.
        cache_row_bytes: memory that one row of a session's cache takes.
        text: how it generates from ids; None for a model that takes rows alone.
        replies: what a device may ask for: `hidden` alone of a model without a head.
        reads: whether a session answers a text, which its encoder reads before the first step.
    """

    family: str
    width: int
    vocabulary: int
    positions: int
    text: TextRules | None = None
    cache_row_bytes: int = 0
    replies: tuple[ReplyKind, ...] = tuple(ReplyKind)
    reads: bool = False

    def reply_bytes(self, reply: Reply) -> int:
        """Bytes of the answer about one row; numbers are float32 and int32."""
        match reply.kind:
            case ReplyKind.HIDDEN:
                return NUMBER_BYTES * self.width
            case ReplyKind.LOGITS:
                return NUMBER_BYTES * self.vocabulary
            case ReplyKind.TOPK:
                return 2 * NUMBER_BYTES * reply.k
            case ReplyKind.ID:
                return NUMBER_BYTES


@dataclass(frozen=True, eq=False)
class Work:
    """What one session contributes to a batch.

    Attributes:
        session: whose cache.
        position: rows of the session before these; its cache is cut there first.
        rows: the next rows (T, D), or their ids (T,); T at least 1.
        reply: what to answer about the last of them (no more than these are), or None when
            what is asked about is still to come.
    """

    session: str
    position: int
    rows: Inputs
    reply: Reply | None


class Decoder(Protocol):
    """One loaded decoder, and the caches of its sessions."""

    @property
    def info(self) -> ModelInfo:
        """What serving must know of the model."""

    @property
    def cache_bytes(self) -> int:
        """Bytes that the sessions' caches have allocated; any thread may ask."""

    def fork(self, source: str, target: str, *, position: int) -> None:
        """Gives session `target` a copy of the first `position` rows of `source`'s cache."""

    def close(self, session: str) -> None:
        """Frees a session's cache; nothing if it has none."""


class Engine(Decoder, Protocol):
    """A decoder in this process."""

    def read(self, session: str, rows: Rows) -> None:
        """Has the encoder read the text that a session answers; the session begins anew.

        Args:
            session: of a model that `reads`.
            rows: (S, D), S at least 1.
        """

    def run(self, batch: Sequence[Work]) -> list[Arrays]:
        """Runs a batch of different sessions.

        Returns:
            For each work its reply about as many rows as were asked about, float32 and
            int32; empty where none was asked for.
        """


@dataclass(frozen=True)
class TextInput:
    """The texts that an encoder takes.

    Attributes:
        positions: most rows of a text.
        width: columns D of its rows; None for a model that takes keyed ids.
        vocabulary: V, ids that a hosted table has rows of.
        types: types of ids, of which the hosted table has rows; 0 if ids have none.
        attends_globally: whether chosen tokens attend to all others, and those to them, in a
            model whose tokens otherwise attend to their neighbours.
    """

    positions: int
    width: int | None
    vocabulary: int
    types: int = 0
    attends_globally: bool = False


@dataclass(frozen=True)
class ImageInput:
    """The images that an encoder takes.

    Attributes:
        shape: C, S, S of one.
        rows: that the model makes of it.
    """

    shape: tuple[int, int, int]
    rows: int


@dataclass(frozen=True)
class EncoderInfo:
    """What serving must know of a loaded encoder.

    Attributes:
        family: the configuration's `model_type`.
        reply: what it answers: `logits`, or `hidden` states after its last layer.
        outputs: O, elements of an answer.
        per_row: whether every row has an answer, and not the whole input one.
        text: the texts that it takes, if it takes some.
        image: the images that it takes, if it takes some.
    """

    family: str
    reply: ReplyKind
    outputs: int
    per_row: bool
    text: TextInput | None = None
    image: ImageInput | None = None

    @property
    def positions(self) -> int:
        """Most rows of a text; of an image, where it takes no texts."""
        if self.text is not None:
            return self.text.positions
        return 1 if self.image is None else self.image.rows


@dataclass(frozen=True, eq=False)
class Text:
    """A whole text.

    Attributes:
        tokens: its rows (T, D), or its keyed ids (T,); T at least 1.
        types: (T,) the type of each id, or None: all 0.
        attends: (T,) which tokens attend to all others, or None: those that the model's
            stock class chooses.
    """

    tokens: Inputs
    types: Ids | None = None
    attends: NDArray[np.bool_] | None = None

    @property
    def rows(self) -> int:
        """T."""
        return len(self.tokens)


@dataclass(frozen=True, eq=False)
class Image:
    """A whole image.

    Attributes:
        pixels: (C, S, S) float32.
        rows: that the model makes of it.
    """

    pixels: NDArray[np.float32]
    rows: int


Passage = Text | Image
"""What an encoder runs whole."""


class Encoder(Protocol):
    """One loaded encoder."""

    @property
    def info(self) -> EncoderInfo:
        """What serving must know of the model."""

    def run(self, batch: Sequence[Passage]) -> list[Arrays]:
        """Runs a batch of texts and images.

        Law: each answer is what it would be alone, to rounding.

        Returns:
            For each its one answer, float32: (O,), or (T, O) where every row has one.
        """


@dataclass(frozen=True, eq=False)
class SeeingEngine:
    """One loaded decoder that answers texts with images in them.

    Attributes:
        engine: the decoder; it takes the rows of images like any others.
        sight: makes those rows; another thread than the engine's may call it.
    """

    engine: Engine
    sight: Encoder


Loaded = Engine | Encoder | SeeingEngine
"""A model, as serving gets it."""
