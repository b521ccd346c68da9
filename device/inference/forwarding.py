"""Whole texts and images through an encoder on the cloud: keyed inputs out, answers un-keyed.

Inputs go in requests of about one size, texts of like length together. What the cloud keeps is
nothing, so a request that is lost is sent again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from triparty.common.deadline import Deadline
from triparty.common.deviceinfo import TOKENS
from triparty.common.encodinginfo import EncodingInfo
from triparty.common.errors import (
    CloudError,
    RequestError,
    RollbackError,
    TooLargeError,
    UnreachableError,
)
from triparty.common.keying import Bundle, KeyedReply
from triparty.common.replies import ForwardReply
from triparty.common.shielding import Shield
from triparty.common.wire import Frame
from triparty.device.inference.attestation import Attestation
from triparty.device.inference.conversation import PAUSES_S

REQUEST_ROWS = 2048
"""Rows of texts in one request, padding included: what half of a cloud's default takes."""
REQUEST_PIXELS = 1 << 21
"""Numbers of images in one request: 8 MB."""

TextLike = str | tuple[str, str]
"""A text, or a pair of texts that the model reads as two parts of one."""

Answer = NDArray[np.float32]
"""What a model says of one text or image: (O,), or (T, O) where every token has an answer."""


class Forwards(Protocol):
    """The forward route of a cloud; `CloudClient` has it."""

    def forward(self, model: str, inputs: Mapping[str, Frame]) -> ForwardReply:
        """Sends named frames; returns the answer about them."""


@dataclass(frozen=True, eq=False)
class TextIds:
    """A text as a model reads it.

    Attributes:
        ids: (T,) plain token ids.
        types: (T,) which part each belongs to.
        is_shortened: whether the text had more tokens than the model takes.
    """

    ids: NDArray[np.int64]
    types: NDArray[np.int64]
    is_shortened: bool


def text_ids(
    texts: Sequence[TextLike], tokenizer: Tokenizer, encoding: EncodingInfo, *, positions: int
) -> list[TextIds]:
    """Texts as tokens, their ends left out where they are too long.

    Args:
        texts: plain.
        tokenizer: of the bundle; its own truncation and padding are switched off.
        encoding: what the model was made for.
        positions: that the model has.

    Raises:
        RequestError: a text without tokens.
    """
    longest = min(positions, encoding.max_tokens or positions)
    tokenizer.no_padding()
    tokenizer.no_truncation()
    given = [_prompted(text, encoding) for text in texts]
    whole = tokenizer.encode_batch(given)
    tokenizer.enable_truncation(longest)
    made = []
    for number, (text, encoded) in enumerate(zip(given, whole, strict=True)):
        is_long = len(encoded.ids) > longest
        cut = tokenizer.encode_batch([text])[0] if is_long else encoded
        if not cut.ids:
            raise RequestError(f"text {number} has no tokens; write something")
        ids, types = (np.array(values, np.int64) for values in (cut.ids, cut.type_ids))
        made.append(TextIds(ids, types, is_long))
    return made


def _prompted(text: TextLike, encoding: EncodingInfo) -> TextLike:
    if isinstance(text, tuple):
        first, second = (part.lower() if encoding.lowercase else part for part in text)
        return encoding.prompt + first, second
    return encoding.prompt + (text.lower() if encoding.lowercase else text)


class Forward:
    """The requests of one model.

    Args:
        requests: the way to the cloud.
        bundle: opened bundle of the model.
        model: its name on the cloud.
        version: of the bundle, which is that of the model it belongs to.
        shield: what becomes of rows before they go; None sends them as they are.
        attestation: what has to be proven before the first request; None asks for no proof.
        deadline: by which all answers have to be there, and how to wait between attempts;
            None sets no end.
    """

    def __init__(
        self,
        requests: Forwards,
        bundle: Bundle,
        model: str,
        *,
        version: int,
        shield: Shield | None = None,
        attestation: Attestation | None = None,
        deadline: Deadline | None = None,
    ) -> None:
        """Sends nothing yet."""
        self._requests, self._bundle, self._model = requests, bundle, model
        self._version, self._deadline = version, deadline or Deadline()
        self._shield, self._attestation = shield or Shield(), attestation

    def texts(self, texts: Sequence[TextIds]) -> list[Answer]:
        """The answers to texts, in their order.

        Raises:
            RollbackError: the cloud hosts another version or epoch than the bundle's.
            TooLargeError: a text that is too long for the cloud.
            UnreachableError: the cloud stayed away.
            AttestationError: no proof that the cloud runs what it should; nothing was sent.
            DeadlineError: not all answers were there in time.
        """
        self._require(texts)
        answers: dict[int, Answer] = {}
        for places in in_requests([len(text.ids) for text in texts], most=REQUEST_ROWS):
            chosen = [texts[at] for at in places]
            answers |= zip(places, self._of_texts(chosen), strict=True)
        return [answers[at] for at in range(len(texts))]

    def images(self, images: Sequence[NDArray[np.float32]]) -> list[Answer]:
        """The answers to images (C, S, S), in their order; errors as for `texts`."""
        self._require(images)
        keyed = [self._keyed(image) for image in images]
        at_once = max(1, REQUEST_PIXELS // max((each.size for each in keyed), default=1))
        answers: list[Answer] = []
        for start in range(0, len(keyed), at_once):
            answers += self._of_images(keyed[start : start + at_once])
        return answers

    def image_rows(self, image: NDArray[np.float32]) -> NDArray[np.float32]:
        """The keyed rows (N, D) of an image (C, S, S) in a text; errors as for `texts`."""
        self._require([image])
        info = self._bundle.info
        tokens = 0 if info.image is None else info.image.tokens
        frames = {"pixels": Frame.of(self._keyed(image)[None])}
        rows: NDArray[np.float32] = self._checked(frames, [(1, tokens, info.width)])[0]
        return rows

    def _keyed(self, image: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.asarray(self._bundle.pixels(image), np.float32)

    def _require(self, inputs: Sequence[object]) -> None:
        """Has proven what must be, if anything is to be sent."""
        if inputs and self._attestation is not None:
            self._attestation.require()

    def _of_texts(self, texts: Sequence[TextIds]) -> list[Answer]:
        def whole() -> list[Answer]:
            plain = self._plain(self._text_frames(texts), len(texts))
            if plain.ndim == 2:
                return list(plain)
            return [row[: len(text.ids)] for row, text in zip(plain, texts, strict=True)]

        return _halved(texts, whole, self._of_texts)

    def _of_images(self, images: Sequence[NDArray[np.float32]]) -> list[Answer]:
        def whole() -> list[Answer]:
            return list(self._plain({"pixels": Frame.of(np.stack(images))}, len(images)))

        return _halved(images, whole, self._of_images)

    def _text_frames(self, texts: Sequence[TextIds]) -> dict[str, Frame]:
        """Rows or keyed ids, with their mask, padded on the right."""
        longest = max(len(text.ids) for text in texts)
        mask = np.arange(longest) < np.array([[len(text.ids)] for text in texts])
        masked = Frame.of(mask.astype(np.int32))
        if self._bundle.info.interface == TOKENS:
            ids = [self._bundle.keyed_ids(text.ids) for text in texts]
            frames = {"ids": _padded(ids, longest), "mask": masked}
            if any(text.types.any() for text in texts):
                frames["types"] = _padded([text.types for text in texts], longest)
            return frames
        rows = [
            self._shield.rows(self._bundle.rows(text.ids, start=0, types=text.types), start=0)
            for text in texts
        ]
        first = rows[0]
        padded = np.zeros((len(rows), longest, first.array.shape[1]), first.array.dtype)
        padded[mask] = np.concatenate([each.array for each in rows])
        return {"rows": Frame(first.dtype, padded), "mask": masked}

    def _plain(self, inputs: Mapping[str, Frame], count: int) -> NDArray[np.float32]:
        """The un-keyed answer (B, O) or (B, T, O) to one request."""
        outputs = self._bundle.info.outputs
        shapes: list[tuple[int, ...]] = [(count, outputs)]
        if "pixels" not in inputs:
            first = next(iter(inputs.values())).array
            shapes.append((count, first.shape[1], outputs))
        keyed = KeyedReply(self._checked(inputs, shapes))
        plain: NDArray[np.float32] = self._bundle.plain_logits(keyed)
        return plain

    def _checked(
        self, inputs: Mapping[str, Frame], shapes: Sequence[tuple[int, ...]]
    ) -> NDArray[np.float32]:
        """The answer to one request, if it is of one of these shapes and of this key."""
        answer = self._asked(inputs)
        hosted, held = (
            (answer.version, answer.epoch),
            (self._version, self._bundle.info.epoch),
        )
        if hosted != held:
            raise RollbackError(
                f"the cloud hosts version {hosted[0]}, epoch {hosted[1]} of '{self._model}', "
                f"this device's bundle is of version {held[0]}, epoch {held[1]}: "
                f"run 'triparty device pull'"
            )
        array = answer.frame.as_float32()
        if array.shape not in shapes:
            raise CloudError(f"expected an answer {shapes[-1]}, got {array.shape}")
        if not np.isfinite(array).all():
            raise CloudError("the cloud's answer is not finite: the model may be damaged")
        return array

    def _asked(self, inputs: Mapping[str, Frame]) -> ForwardReply:
        """One request, repeated while the connection breaks."""
        for pause_s in PAUSES_S:
            try:
                return self._requests.forward(self._model, inputs)
            except UnreachableError:
                self._deadline.sleep(pause_s)
        return self._requests.forward(self._model, inputs)


def in_requests(lengths: Sequence[int], *, most: int) -> Iterator[list[int]]:
    """The places of texts that go together: like lengths, at most `most` rows with padding.

    Every place is in exactly one request; a text that is longer than `most` goes alone.
    """
    chosen: list[int] = []
    for at in sorted(range(len(lengths)), key=lambda at: lengths[at]):
        if chosen and lengths[at] * (len(chosen) + 1) > most:
            yield chosen
            chosen = []
        chosen.append(at)
    if chosen:
        yield chosen


def _halved(
    items: Sequence[Any],
    whole: Callable[[], list[Answer]],
    part: Callable[[Sequence[Any]], list[Answer]],
) -> list[Answer]:
    """The answers to all, or to either half where the cloud does not take all at once."""
    try:
        return whole()
    except TooLargeError:
        if len(items) < 2:
            raise
    middle = len(items) // 2
    return part(items[:middle]) + part(items[middle:])


def _padded(parts: Sequence[NDArray[np.int64]], length: int) -> Frame:
    padded = np.zeros((len(parts), length), np.int32)
    for row, part in zip(padded, parts, strict=True):
        row[: len(part)] = part
    return Frame.of(padded)
