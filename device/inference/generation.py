"""The story of one answer: text in, keyed rows out, keyed logits in, text out.

Only keyed rows leave the device, and only keyed logits come back. (`completions` tells it for
the interface `tokens`.)
"""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, field

import numpy as np
from tokenizers import Tokenizer

from triparty.common.errors import CheckpointError, CloudError, RequestError
from triparty.common.keying import Bundle, PlainLogits
from triparty.common.sampling import next_token
from triparty.device.inference.answer import Answer, FinishReason, Piece, Pieces
from triparty.device.inference.conversation import Conversation
from triparty.device.inference.options import GenerationOptions
from triparty.device.inference.speculation import Speculation
from triparty.device.inference.traffic import Traffic


@dataclass(frozen=True)
class Generation:
    """A whole answer.

    Attributes:
        text: without the prompt, and without what it stopped at.
        token_ids: with the end token, if there was one and the engine says it.
        finish_reason: `stop` at an end token or a stop text, `length` at the limit.
        seconds: from the first request to the last token.
        prompt_tokens: how many tokens the prompt had.
        logprobs: log-probability of each token, if they were asked for.
        traffic: what went over the wire for it.
    """

    text: str
    token_ids: tuple[int, ...]
    finish_reason: FinishReason
    seconds: float
    prompt_tokens: int
    logprobs: tuple[float, ...] = ()
    traffic: Traffic = field(default_factory=Traffic)


Parts = Generator[Piece | Generation, None, None]
"""The pieces of an answer as they come, then the whole; closing it ends the work for it."""


@dataclass(frozen=True)
class Question:
    """What is to be answered.

    Attributes:
        ids: (T,) plain token ids.
        most: how many tokens the answer may have.
        image_at: position of the first token of the image in it; None without one.
        source: ids (S,) of the text that a model with an encoder reads whole; `ids` are then
            what its answer begins with. None for other models.
    """

    ids: list[int]
    most: int
    image_at: int | None = None
    source: tuple[int, ...] | None = None

    @property
    def prompt_tokens(self) -> int:
        """Tokens of what was asked."""
        return len(self.ids if self.source is None else self.source)


def read_tokenizer(bundle: Bundle) -> Tokenizer:
    """The tokenizer of a bundle.

    Raises:
        CheckpointError: the file is no tokenizer.
    """
    try:
        return Tokenizer.from_str(bundle.tokenizer_file.read_text(encoding="utf-8"))
    except Exception as error:  # tokenizers raises no narrower one
        raise CheckpointError(f"{bundle.tokenizer_file} is no tokenizer: {error}") from error


def question_of(ids: Sequence[int], bundle: Bundle, options: GenerationOptions) -> Question:
    """A question of token ids, if it leaves room for an answer.

    Raises:
        RequestError: no tokens, or as many as the model has positions.
    """
    if not len(ids):
        raise RequestError("the prompt has no tokens; write something")
    positions = bundle.info.max_positions
    room = positions - len(ids)
    if room < 1:
        raise RequestError(
            f"the prompt has {len(ids)} tokens and the model {positions} positions, which "
            f"leaves none for an answer: shorten the prompt"
        )
    return Question(list(ids), min(options.max_tokens or room, room))


def pieces(
    question: Question,
    *,
    bundle: Bundle,
    tokenizer: Tokenizer,
    conversation: Conversation,
    options: GenerationOptions,
    speculation: Speculation | None = None,
) -> Pieces:
    """Yields the answer to a question token by token; a generator that can be closed.

    After the last piece it sends what the conversation lacks to be a whole number of blocks:
    more of the model's own answer, which nobody reads.

    Args:
        question: what is answered.
        bundle: opened bundle of the model.
        tokenizer: of the bundle.
        conversation: a new one, or one that the question goes on from; the caller closes it.
        options: how tokens are chosen and where the answer ends.
        speculation: guesses tokens that are sent ahead of the answer, which is the same as
            without; None guesses none.
    """
    speculation = speculation or Speculation()
    rng, eos_ids = options.generator(), bundle.info.eos_ids
    answer = Answer(
        tokenizer, question.ids, options=options, most=question.most, eos_ids=eos_ids
    )
    pending = conversation.rest_of(question.ids)
    while True:
        room = min(conversation.room, question.most - answer.count - 1)
        guessed = speculation.proposals(answer.ids, room=room)
        replies = conversation.logits_of_last([*pending, *guessed], 1 + len(guessed))
        said: list[Piece] = []
        right = 0
        for reply, guess in zip(replies, [*guessed, None], strict=True):
            logits = PlainLogits(reply)  # (V,)
            token = next_token(logits, options, rng, answer.ids)
            said.append(answer.add(token, logits))
            right += token == guess
            if token != guess or answer.reason is not None:
                break
        conversation.take_back(len(guessed) - right)
        speculation.judged(len(guessed), right)
        yield from said
        if answer.reason is not None:
            _fill(conversation, logits, eos_ids)
            return answer.reason
        pending = [token]


def _fill(conversation: Conversation, logits: PlainLogits, eos_ids: tuple[int, ...]) -> None:
    """Goes on as if the answer did: the likeliest token, but none that ends it."""
    for _ in range(conversation.missing):
        open_ended = np.array(logits)
        open_ended[list(eos_ids)] = -np.inf
        logits = conversation.logits_after([int(open_ended.argmax())])


def collect(stream: Pieces, *, question: Question, traffic: Traffic | None = None) -> Parts:
    """The pieces as they come, then the whole answer; closing it closes the pieces.

    Args:
        stream: the answer.
        question: what it answers.
        traffic: where its traffic is counted.
    """
    started = time.monotonic()
    said: list[Piece] = []
    with closing(stream):
        while True:
            try:
                piece = next(stream)
            except StopIteration as end:
                reason: FinishReason = end.value
                break
            said.append(piece)
            yield piece
    yield Generation(
        text="".join(piece.text for piece in said),
        token_ids=tuple(piece.token_id for piece in said),
        finish_reason=reason,
        seconds=time.monotonic() - started,
        prompt_tokens=question.prompt_tokens,
        logprobs=tuple(piece.logprob for piece in said if piece.logprob is not None),
        traffic=traffic or Traffic(),
    )


def whole(parts: Parts) -> Generation:
    """The whole answer, which comes after its pieces.

    Raises:
        CloudError: it does not come.
    """
    with closing(parts):
        for part in parts:
            if isinstance(part, Generation):
                return part
    raise CloudError("the answer ended without an end")
