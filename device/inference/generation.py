"""The story of one answer: text in, keyed rows out, keyed logits in, text out.

Only keyed rows leave the device, and only keyed logits come back. (`completions` tells it for
the interface `tokens`.)
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Literal

import numpy as np
from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream

from triparty.common.errors import CheckpointError, RequestError, SettingsError
from triparty.common.keying import Bundle, PlainLogits
from triparty.common.sampling import SamplingOptions, next_token
from triparty.device.inference.conversation import Conversation

FinishReason = Literal["stop", "length"]


@dataclass(frozen=True)
class Piece:
    """One generated token.

    Attributes:
        token_id: in the tokenizer's order.
        text: what can be shown since the piece before; may be empty while a character is
            not complete.
    """

    token_id: int
    text: str


Pieces = Generator[Piece, None, FinishReason]
"""An answer token by token; why it ended is what the generator returns."""


@dataclass(frozen=True)
class Generation:
    """A whole answer.

    Attributes:
        text: without the prompt.
        token_ids: with the end token, if there was one and the engine says it.
        finish_reason: `stop` at an end token, `length` at the limit.
        seconds: from the first request to the last token.
    """

    text: str
    token_ids: tuple[int, ...]
    finish_reason: FinishReason
    seconds: float


def read_tokenizer(bundle: Bundle) -> Tokenizer:
    """The tokenizer of a bundle.

    Raises:
        CheckpointError: the file is no tokenizer.
    """
    try:
        return Tokenizer.from_str(bundle.tokenizer_file.read_text(encoding="utf-8"))
    except Exception as error:  # tokenizers raises no narrower one
        raise CheckpointError(f"{bundle.tokenizer_file} is no tokenizer: {error}") from error


def pieces(
    prompt: str,
    *,
    bundle: Bundle,
    tokenizer: Tokenizer,
    conversation: Conversation,
    options: SamplingOptions,
    max_tokens: int,
    ignore_eos: bool = False,
) -> Pieces:
    """Yields the continuation of a prompt token by token; a generator that can be closed.

    Args:
        prompt: plain text.
        bundle: opened bundle of the model.
        tokenizer: of the bundle.
        conversation: a new one; the caller closes it.
        options: how tokens are chosen.
        max_tokens: most tokens to generate, at least 1.
        ignore_eos: go on after an end token, for measurements.

    Raises:
        SettingsError: `max_tokens` below 1.
        RequestError: a prompt without tokens, or too long for the model.
    """
    ids, most = prompt_ids(prompt, tokenizer, bundle, max_tokens=max_tokens)
    return (
        yield from pieces_after(
            ids,
            bundle=bundle,
            tokenizer=tokenizer,
            conversation=conversation,
            options=options,
            most=most,
            ignore_eos=ignore_eos,
        )
    )


def pieces_after(
    ids: list[int],
    *,
    bundle: Bundle,
    tokenizer: Tokenizer,
    conversation: Conversation,
    options: SamplingOptions,
    most: int,
    ignore_eos: bool = False,
) -> Pieces:
    """`pieces` of a prompt of token ids that leaves room for `most` tokens.

    After the last piece it sends what the conversation lacks to be a whole number of blocks:
    more of the model's own answer, which nobody reads.
    """
    rng = options.generator()
    text = AnswerText(tokenizer, ids)
    pending, count = ids, 0
    while True:
        logits = conversation.logits_after(pending)  # (V,)
        token = next_token(logits, options, rng)
        count += 1
        is_end = token in bundle.info.eos_ids
        is_last = count == most or (is_end and not ignore_eos)
        yield Piece(token, text.after(token) + (text.rest() if is_last else ""))
        if is_last:
            _fill(conversation, logits, bundle.info.eos_ids)
            return "stop" if is_end else "length"
        pending = [token]


def _fill(conversation: Conversation, logits: PlainLogits, eos_ids: tuple[int, ...]) -> None:
    """Goes on as if the answer did: the likeliest token, but none that ends it."""
    for _ in range(conversation.missing):
        open_ended = np.array(logits)
        open_ended[list(eos_ids)] = -np.inf
        logits = conversation.logits_after([int(open_ended.argmax())])


def prompt_ids(
    prompt: str, tokenizer: Tokenizer, bundle: Bundle, *, max_tokens: int
) -> tuple[list[int], int]:
    """The plain ids (T,) of a prompt, and how many tokens an answer to it may have.

    Raises:
        SettingsError: `max_tokens` below 1.
        RequestError: a prompt without tokens, or too long for the model.
    """
    if max_tokens < 1:
        raise SettingsError(f"max-tokens must be at least 1, got {max_tokens}")
    ids: list[int] = tokenizer.encode(prompt).ids
    if not ids:
        raise RequestError("the prompt has no tokens; write something")
    room = bundle.info.max_positions - len(ids)
    if room < 1:
        raise RequestError(
            f"the prompt has {len(ids)} tokens and the model {bundle.info.max_positions} "
            f"positions, which leaves none for an answer: shorten the prompt"
        )
    return ids, min(max_tokens, room)


def collect(stream: Pieces) -> Iterator[Piece | Generation]:
    """The pieces as they come, then the whole answer; closing it closes the pieces."""
    started = time.monotonic()
    text: list[str] = []
    token_ids: list[int] = []
    with closing(stream):
        while True:
            try:
                piece = next(stream)
            except StopIteration as end:
                reason: FinishReason = end.value
                break
            text.append(piece.text)
            token_ids.append(piece.token_id)
            yield piece
    yield Generation(
        text="".join(text),
        token_ids=tuple(token_ids),
        finish_reason=reason,
        seconds=time.monotonic() - started,
    )


class AnswerText:
    """The answer's text as it grows, one character at a time at least."""

    def __init__(self, tokenizer: Tokenizer, prompt: list[int]) -> None:
        """The text after a prompt of these ids."""
        self._tokenizer = tokenizer
        self._stream = DecodeStream(ids=prompt, skip_special_tokens=True)
        self._ids = list(prompt)
        self._shown = tokenizer.decode(prompt)

    def after(self, token: int) -> str:
        """What the token adds; empty while a character lacks bytes."""
        self._ids.append(token)
        new: str = self._stream.step(self._tokenizer, token) or ""
        self._shown += new
        return new

    def rest(self) -> str:
        """What the stream held back at the end: a character that stayed incomplete."""
        whole: str = self._tokenizer.decode(self._ids)
        return whole[len(self._shown) :] if whole.startswith(self._shown) else ""
