"""What is answered, in the form of OpenAI's API: whole, or piece by piece."""

from __future__ import annotations

import base64
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from triparty.device.inference.answer import Piece
from triparty.device.inference.generation import Generation

TokenText = Callable[[int], str]
Document = dict[str, Any]


class Form(Protocol):
    """How one route answers."""

    def whole(self, answers: Sequence[WholeAnswer]) -> Document:
        """All answers in one document."""

    def opening(self, index: int) -> Document | None:
        """What a streamed answer begins with, if anything."""

    def piece(self, index: int, piece: Piece) -> Document | None:
        """A piece of a streamed answer; None if it has nothing to show."""

    def closing(self, index: int, finish_reason: str) -> Document:
        """The end of a streamed answer."""

    def usage(self, answers: Sequence[Generation]) -> Document:
        """The last part of a stream."""


@dataclass(frozen=True)
class WholeAnswer:
    """A whole answer and its pieces."""

    generation: Generation
    pieces: Sequence[Piece]


@dataclass(frozen=True)
class _Envelope:
    """What all parts of one answer have in common.

    Attributes:
        id: of the answer.
        created: seconds since 1970.
        model: its name.
        choices: answers to each prompt.
        has_usage: whether a stream tells the usage.
        token_text: what a token adds to a text.
    """

    id: str
    created: int
    model: str
    choices: int
    has_usage: bool
    token_text: TokenText

    def document(self, kind: str, choices: list[Document], **more: Any) -> Document:
        return {
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": self.model,
            "system_fingerprint": None,
            "choices": choices,
            **more,
        }

    def part(self, kind: str, choices: list[Document]) -> Document:
        return self.document(kind, choices, **({"usage": None} if self.has_usage else {}))

    def counted(self, answers: Sequence[Generation]) -> Document:
        asked = sum(one.prompt_tokens for one in answers[:: self.choices])
        said = sum(len(one.token_ids) for one in answers)
        return {
            "prompt_tokens": asked,
            "completion_tokens": said,
            "total_tokens": asked + said,
        }


def envelope(
    prefix: str, model: str, *, choices: int, has_usage: bool, token_text: TokenText
) -> _Envelope:
    """The envelope of a new answer."""
    name = f"{prefix}-{secrets.token_hex(12)}"
    return _Envelope(name, int(time.time()), model, choices, has_usage, token_text)


@dataclass(frozen=True)
class ChatForm:
    """The answers of `/v1/chat/completions`."""

    envelope: _Envelope

    def whole(self, answers: Sequence[WholeAnswer]) -> Document:
        """All answers in one document."""
        choices: list[Document] = [
            {
                "index": index,
                "message": {
                    "role": "assistant",
                    "content": answer.generation.text,
                    "refusal": None,
                },
                "logprobs": self._logprobs(answer.pieces),
                "finish_reason": answer.generation.finish_reason,
            }
            for index, answer in enumerate(answers)
        ]
        usage = self.envelope.counted([answer.generation for answer in answers])
        return self.envelope.document("chat.completion", choices, usage=usage)

    def opening(self, index: int) -> Document:
        """What a streamed answer begins with."""
        return self._part(index, {"role": "assistant", "content": ""})

    def piece(self, index: int, piece: Piece) -> Document | None:
        """A piece of a streamed answer."""
        logprobs = self._logprobs([piece])
        if not piece.text and logprobs is None:
            return None
        return self._part(index, {"content": piece.text}, logprobs=logprobs)

    def closing(self, index: int, finish_reason: str) -> Document:
        """The end of a streamed answer."""
        return self._part(index, {}, finish_reason=finish_reason)

    def usage(self, answers: Sequence[Generation]) -> Document:
        """The last part of a stream."""
        counted = self.envelope.counted(answers)
        return self.envelope.document("chat.completion.chunk", [], usage=counted)

    def _part(
        self,
        index: int,
        delta: Document,
        *,
        logprobs: Document | None = None,
        finish_reason: str | None = None,
    ) -> Document:
        choice = {
            "index": index,
            "delta": delta,
            "logprobs": logprobs,
            "finish_reason": finish_reason,
        }
        return self.envelope.part("chat.completion.chunk", [choice])

    def _logprobs(self, pieces: Sequence[Piece]) -> Document | None:
        told = [
            {
                **self._likelihood(piece.token_id, piece.logprob),
                "top_logprobs": [self._likelihood(n.token_id, n.logprob) for n in piece.top],
            }
            for piece in pieces
            if piece.logprob is not None
        ]
        return {"content": told, "refusal": None} if told else None

    def _likelihood(self, token: int, logprob: float) -> Document:
        text = self.envelope.token_text(token)
        return {"token": text, "logprob": logprob, "bytes": list(text.encode())}


class TextForm:
    """The answers of `/v1/completions`."""

    def __init__(self, envelope: _Envelope) -> None:
        """Nothing is answered yet."""
        self.envelope = envelope
        self._offsets: dict[int, int] = {}

    def whole(self, answers: Sequence[WholeAnswer]) -> Document:
        """All answers in one document."""
        choices = [
            self._choice(
                index,
                answer.generation.text,
                self._logprobs(index, answer.pieces),
                answer.generation.finish_reason,
            )
            for index, answer in enumerate(answers)
        ]
        usage = self.envelope.counted([answer.generation for answer in answers])
        return self.envelope.document("text_completion", choices, usage=usage)

    def opening(self, index: int) -> None:
        """A streamed text begins with its first piece."""

    def piece(self, index: int, piece: Piece) -> Document | None:
        """A piece of a streamed answer."""
        logprobs = self._logprobs(index, [piece])
        if not piece.text and logprobs is None:
            return None
        return self._part(self._choice(index, piece.text, logprobs, None))

    def closing(self, index: int, finish_reason: str) -> Document:
        """The end of a streamed answer."""
        return self._part(self._choice(index, "", None, finish_reason))

    def usage(self, answers: Sequence[Generation]) -> Document:
        """The last part of a stream."""
        counted = self.envelope.counted(answers)
        return self.envelope.document("text_completion", [], usage=counted)

    def _part(self, choice: Document) -> Document:
        return self.envelope.part("text_completion", [choice])

    @staticmethod
    def _choice(
        index: int, text: str, logprobs: Document | None, finish_reason: str | None
    ) -> Document:
        return {
            "index": index,
            "text": text,
            "logprobs": logprobs,
            "finish_reason": finish_reason,
        }

    def _logprobs(self, index: int, pieces: Sequence[Piece]) -> Document | None:
        told = [piece for piece in pieces if piece.logprob is not None]
        if not told:
            return None
        text = self.envelope.token_text
        tokens = [text(piece.token_id) for piece in told]
        offsets = []
        for token in tokens:
            offsets.append(self._offsets.get(index, 0))
            self._offsets[index] = offsets[-1] + len(token)
        return {
            "tokens": tokens,
            "token_logprobs": [piece.logprob for piece in told],
            "top_logprobs": [
                {text(n.token_id): n.logprob for n in piece.top} for piece in told
            ],
            "text_offset": offsets,
        }


def embeddings(
    model: str, vectors: NDArray[np.float32], tokens: int, *, in_base64: bool
) -> Document:
    """The answer of `/v1/embeddings`.

    Args:
        model: its name.
        vectors: (N, D).
        tokens: of all texts together.
        in_base64: vectors as base64 of little-endian float32, as OpenAI's library asks for.
    """
    told: list[str] | list[list[float]] = (
        [base64.b64encode(row.astype("<f4").tobytes()).decode() for row in vectors]
        if in_base64
        else vectors.tolist()
    )
    data = [
        {"object": "embedding", "index": at, "embedding": one} for at, one in enumerate(told)
    ]
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return {"object": "list", "data": data, "model": model, "usage": usage}
