"""Whole texts and images through an encoder on the cloud: keyed inputs out, answers un-keyed.

Inputs go in requests of about one size, texts of like length together. What the cloud keeps is
nothing, so a request that is lost is sent again. Of one-time instances each request takes one:
a session is opened on it, answers this request alone, and ends.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from triparty.common.deadline import Deadline
from triparty.common.deviceinfo import TOKENS
from triparty.common.encodinginfo import EncodingInfo
from triparty.common.errors import (
    CloudError,
    NotFoundError,
    RequestError,
    RetiredError,
    RollbackError,
    SpentError,
    TooLargeError,
    TripartyError,
    UnreachableError,
)
from triparty.common.keying import Bundle, KeyedReply
from triparty.common.replies import ForwardReply, SessionRecord
from triparty.common.shielding import Shield
from triparty.common.wire import Frame
from triparty.device.inference.attestation import Attestation
from triparty.device.inference.conversation import PAUSES_S, SESSIONS, Renewed

_T = TypeVar("_T")

REQUEST_ROWS = 2048
"""Rows of texts in one request, padding included: what half of a cloud's default takes."""
REQUEST_PIXELS = 1 << 21
"""Numbers of images in one request: 8 MB."""

TextLike = str | tuple[str, str]
"""A text, or a pair of texts that the model reads as two parts of one."""

Answer = NDArray[np.float32]
"""What a model says of one text or image: (O,), or (T, O) where every token has an answer."""


class Forwards(Protocol):
    """The forward route of a cloud, and the sessions of its requests; `CloudClient` is one."""

    def open_session(
        self, model: str, *, version: int | None = None, request_id: str | None = None
    ) -> SessionRecord:
        """Opens a session on a one-time instance; a repeated request is the same session."""

    def forward(
        self,
        model: str,
        inputs: Mapping[str, Frame],
        *,
        session: str | None = None,
        request_id: str | None = None,
    ) -> ForwardReply:
        """Sends named frames, in a session if they are its one request."""

    def close_session(self, session: str) -> None:
        """Ends a session; one that is gone already is no error."""


class Keys(Protocol):
    """The keys of the requests; `keyring.Keyring` is one."""

    def require(self, count: int) -> None:
        """Raises PoolEmptyError if there are not enough for `count` requests."""

    def key(self) -> Renewed:
        """The next one-time key, or the one that is shared."""

    def next_key(self) -> Renewed:
        """The key after one that was refused."""


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
        key: of the first request, and of all if it is not for one.
        model: its name on the cloud.
        keys: where other keys come from; None: a key that is out of use is an error.
        shield: what becomes of rows before they go; None sends them as they are.
        attestation: what has to be proven before the first request; None asks for no proof.
        deadline: by which all answers have to be there, and how to wait between attempts;
            None sets no end.
    """

    def __init__(
        self,
        requests: Forwards,
        key: Renewed,
        model: str,
        *,
        keys: Keys | None = None,
        shield: Shield | None = None,
        attestation: Attestation | None = None,
        deadline: Deadline | None = None,
    ) -> None:
        """Sends nothing yet."""
        self._requests, self._keys, self._model = requests, keys, model
        self._key: Renewed | None = key
        self._deadline = deadline or Deadline()
        self._shield, self._attestation = shield or Shield(), attestation

    def texts(self, texts: Sequence[TextIds]) -> list[Answer]:
        """The answers to texts, in their order.

        Raises:
            RollbackError: the cloud hosts another version or epoch than the bundle's.
            PoolEmptyError: fewer one-time instances are left than requests are needed; nothing
                was sent unless the cloud refused some as too large.
            TooLargeError: a text that is too long for the cloud.
            UnreachableError: the cloud stayed away.
            AttestationError: no proof that the cloud runs what it should; nothing was sent.
            DeadlineError: not all answers were there in time.
        """
        self._require(texts)
        answers: dict[int, Answer] = {}
        together = list(in_requests([len(text.ids) for text in texts], most=REQUEST_ROWS))
        self._require_keys(len(together))
        for places in together:
            chosen = [texts[at] for at in places]
            answers |= zip(places, self._of_texts(chosen), strict=True)
        return [answers[at] for at in range(len(texts))]

    def images(self, images: Sequence[NDArray[np.float32]]) -> list[Answer]:
        """The answers to images (C, S, S), in their order; errors as for `texts`."""
        self._require(images)
        at_once = max(1, REQUEST_PIXELS // max((each.size for each in images), default=1))
        together = [images[at : at + at_once] for at in range(0, len(images), at_once)]
        self._require_keys(len(together))
        return [answer for some in together for answer in self._of_images(some)]

    def image_rows(self, image: NDArray[np.float32]) -> NDArray[np.float32]:
        """The keyed rows (N, D) of an image (C, S, S) in a text; errors as for `texts`."""
        self._require([image])

        def under(key: Renewed) -> NDArray[np.float32]:
            info = key.bundle.info
            tokens = 0 if info.image is None else info.image.tokens
            frames = {"pixels": _pixel_frame([image], key.bundle)}
            rows: NDArray[np.float32] = self._checked(key, frames, [(1, tokens, info.width)])[0]
            return rows

        return self._under_a_key(under)

    def _require_keys(self, count: int) -> None:
        if self._keys is not None:
            self._keys.require(count)

    def _under_a_key(self, asked: Callable[[Renewed], _T]) -> _T:
        """What is asked in one request, under the next key where one is out of use.

        A one-time key is out of use with its session, too.
        """
        key = self._key
        if key is None:
            if self._keys is None:
                raise SpentError("the one-time instance was used: take the next one")
            key = self._keys.key()
        renewed = 0
        while True:
            self._key = None if key.once else key
            try:
                return asked(key)
            except (RetiredError, RollbackError, SpentError, NotFoundError) as error:
                renewed += 1
                is_lost = isinstance(error, NotFoundError) and not key.once
                if self._keys is None or is_lost or renewed == SESSIONS:
                    raise
                key = self._keys.next_key()

    def _require(self, inputs: Sequence[object]) -> None:
        """Has proven what must be, if anything is to be sent."""
        if inputs and self._attestation is not None:
            self._attestation.require()

    def _of_texts(self, texts: Sequence[TextIds]) -> list[Answer]:
        def under(key: Renewed) -> list[Answer]:
            plain = self._plain(key, self._text_frames(texts, key.bundle), len(texts))
            if plain.ndim == 2:
                return list(plain)
            return [row[: len(text.ids)] for row, text in zip(plain, texts, strict=True)]

        return _halved(texts, lambda: self._under_a_key(under), self._of_texts)

    def _of_images(self, images: Sequence[NDArray[np.float32]]) -> list[Answer]:
        def under(key: Renewed) -> list[Answer]:
            frames = {"pixels": _pixel_frame(images, key.bundle)}
            return list(self._plain(key, frames, len(images)))

        return _halved(images, lambda: self._under_a_key(under), self._of_images)

    def _text_frames(self, texts: Sequence[TextIds], bundle: Bundle) -> dict[str, Frame]:
        """Rows or keyed ids, with their mask, padded on the right."""
        longest = max(len(text.ids) for text in texts)
        mask = np.arange(longest) < np.array([[len(text.ids)] for text in texts])
        masked = Frame.of(mask.astype(np.int32))
        if bundle.info.interface == TOKENS:
            ids = [bundle.keyed_ids(text.ids) for text in texts]
            frames = {"ids": _padded(ids, longest), "mask": masked}
            if any(text.types.any() for text in texts):
                frames["types"] = _padded([text.types for text in texts], longest)
            return frames
        rows = [
            self._shield.rows(bundle.rows(text.ids, start=0, types=text.types), start=0)
            for text in texts
        ]
        first = rows[0]
        padded = np.zeros((len(rows), longest, first.array.shape[1]), first.array.dtype)
        padded[mask] = np.concatenate([each.array for each in rows])
        return {"rows": Frame(first.dtype, padded), "mask": masked}

    def _plain(
        self, key: Renewed, inputs: Mapping[str, Frame], count: int
    ) -> NDArray[np.float32]:
        """The un-keyed answer (B, O) or (B, T, O) to one request."""
        outputs = key.bundle.info.outputs
        shapes: list[tuple[int, ...]] = [(count, outputs)]
        if "pixels" not in inputs:
            first = next(iter(inputs.values())).array
            shapes.append((count, first.shape[1], outputs))
        keyed = KeyedReply(self._checked(key, inputs, shapes))
        plain: NDArray[np.float32] = key.bundle.plain_logits(keyed)
        return plain

    def _checked(
        self, key: Renewed, inputs: Mapping[str, Frame], shapes: Sequence[tuple[int, ...]]
    ) -> NDArray[np.float32]:
        """The answer to one request, if it is of one of these shapes and of this key."""
        if key.once:
            answer = self._asked_once(key, inputs)
        else:
            answer = self._repeated(lambda: self._requests.forward(self._model, inputs))
        self._check_key(answer, key)
        array = answer.frame.as_float32()
        if array.shape not in shapes:
            raise CloudError(f"expected an answer {shapes[-1]}, got {array.shape}")
        if not np.isfinite(array).all():
            raise CloudError("the cloud's answer is not finite: the model may be damaged")
        return array

    def _check_key(self, answer: ForwardReply | SessionRecord, key: Renewed) -> None:
        hosted, held = (answer.version, answer.epoch), (key.version, key.bundle.info.epoch)
        if hosted != held:
            raise RollbackError(
                f"the cloud hosts version {hosted[0]}, epoch {hosted[1]} of '{self._model}', "
                f"this device's bundle is of version {held[0]}, epoch {held[1]}: "
                f"run 'triparty device pull'"
            )

    def _asked_once(self, key: Renewed, inputs: Mapping[str, Frame]) -> ForwardReply:
        """One request, in a session of its own on a one-time instance."""
        opening, asking = secrets.token_hex(16), secrets.token_hex(16)
        session = self._repeated(
            lambda: self._requests.open_session(
                self._model, version=key.version, request_id=opening
            )
        )
        key.begin()
        try:
            self._check_key(session, key)
            return self._repeated(
                lambda: self._requests.forward(
                    self._model, inputs, session=session.id, request_id=asking
                )
            )
        finally:
            with suppress(TripartyError):  # the cloud ends an idle session by itself
                self._requests.close_session(session.id)

    def _repeated(self, request: Callable[[], _T]) -> _T:
        """One request, repeated while the connection breaks."""
        for pause_s in PAUSES_S:
            try:
                return request()
            except UnreachableError:
                self._deadline.sleep(pause_s)
        return request()


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


def _pixel_frame(images: Sequence[NDArray[np.float32]], bundle: Bundle) -> Frame:
    """Keyed pixels (B, C, S, S)."""
    return Frame.of(np.stack([np.asarray(bundle.pixels(one), np.float32) for one in images]))
