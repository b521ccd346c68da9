"""One answer as it grows, token by token: its text, its likelihoods, and why it ends.

Does no I/O: both interfaces tell it their tokens, and it says what to show.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream

from triparty.common.keying import PlainLogits
from triparty.common.sampling import log_probabilities
from triparty.device.inference.options import GenerationOptions
from triparty.device.inference.stopping import StopTexts

FinishReason = Literal["stop", "length"]


@dataclass(frozen=True)
class TokenLikelihood:
    """A token and how likely the model found it.

    Attributes:
        token_id: in the tokenizer's order.
        logprob: its log-probability, before any option changed it.
    """

    token_id: int
    logprob: float


@dataclass(frozen=True)
class Piece:
    """One generated token.

    Attributes:
        token_id: in the tokenizer's order.
        text: what can be shown since the piece before; may be empty while a character is
            not complete, or while the text may be the beginning of a stop.
        logprob: log-probability of the token, if it was asked for.
        top: the likeliest tokens at its place, likeliest first, if they were asked for.
    """

    token_id: int
    text: str
    logprob: float | None = None
    top: tuple[TokenLikelihood, ...] = ()


Pieces = Generator[Piece, None, FinishReason]
"""An answer token by token; why it ended is what the generator returns."""


class Answer:
    """What is said so far.

    Args:
        tokenizer: of the bundle.
        question: ids (T,) of what is answered.
        options: where the answer ends.
        most: tokens that it may have.
        eos_ids: tokens after which it ends.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        question: list[int],
        *,
        options: GenerationOptions,
        most: int,
        eos_ids: Iterable[int],
    ) -> None:
        """Nothing is said yet."""
        self._options, self._most = options, most
        self._eos_ids = frozenset(eos_ids)
        self._text = AnswerText(tokenizer, question)
        self._stops = StopTexts(options.stops)
        self.ids = list(question)
        self.count = 0
        self.reason: FinishReason | None = None
        """Why it ended; None while it goes on."""

    @property
    def holds_text(self) -> bool:
        """Whether some text waits for the tokens that follow."""
        return self._stops.holds

    @property
    def is_stopped(self) -> bool:
        """Whether a stop text has come."""
        return self._stops.is_found

    def add(self, token: int, logits: PlainLogits | None = None) -> Piece:
        """Takes the next token.

        Args:
            token: its id.
            logits: (V,) that it was chosen from; needed if log-probabilities are wanted.
        """
        self.ids.append(token)
        self.count += 1
        text = self._stops.after(self._text.after(token))
        is_end = token in self._eos_ids
        if self._stops.is_found or (is_end and not self._options.ignore_eos):
            self.reason = "stop"
        elif self.count == self._most:
            self.reason = "stop" if is_end else "length"
        if self.reason is not None:
            text += self.rest()
        if logits is None or self._options.logprobs is None:
            return Piece(token, text)
        likelihoods = _likelihoods(logits, token, self._options.logprobs)
        return Piece(token, text, likelihoods[0].logprob, tuple(likelihoods[1:]))

    def rest(self) -> str:
        """The text that was held back, when no token follows."""
        if self._stops.is_found:
            return ""
        shown = self._stops.after(self._text.rest())
        return shown + self._stops.rest()


def _likelihoods(logits: PlainLogits, token: int, count: int) -> list[TokenLikelihood]:
    """The token's likelihood, then those of the likeliest, likeliest first."""
    logs = log_probabilities(logits)
    count = min(count, logs.size)
    likeliest = np.argpartition(-logs, count - 1)[:count] if count else np.array([], np.int64)
    ordered = sorted(likeliest.tolist(), key=lambda n: (-logs[n], n))
    return [TokenLikelihood(int(n), float(logs[n])) for n in [token, *ordered]]


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
        try:
            new: str = self._stream.step(self._tokenizer, token) or ""
        except Exception:  # noqa: BLE001 - the library raises no narrower one
            return self._anew()
        self._shown += new
        return new

    def _anew(self) -> str:
        """Goes on behind bytes that are no character: decoding them changed what was shown."""
        before, self._shown = (
            self._tokenizer.decode(ids) for ids in (self._ids[:-1], self._ids)
        )
        self._stream = DecodeStream(ids=self._ids, skip_special_tokens=True)
        return self._shown[len(before) :] if self._shown.startswith(before) else ""

    def rest(self) -> str:
        """What the stream held back at the end: a character that stayed incomplete."""
        whole: str = self._tokenizer.decode(self._ids)
        rest = whole[len(self._shown) :] if whole.startswith(self._shown) else ""
        self._shown += rest
        return rest
