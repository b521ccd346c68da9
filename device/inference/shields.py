"""The story of one answer among decoys: k texts are asked, in an order that says nothing.

All streams are made in the same way: each has a question of the same length, its own session
and its own noise, draws its answer with the same options and ends where its own answer ends.
In each round every stream that goes on takes one step, in an order that is drawn once; the
real one is at each place with the same probability, and whoever reads its pieces gets them
between rounds. So neither order nor timing nor when a stream ends tells which one is real: only
the texts do, as far as somebody can read them.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Protocol

import numpy as np
from tokenizers import Tokenizer

from triparty.common.decoys import DecoyKind, DecoyTexts, turns
from triparty.common.errors import SettingsError
from triparty.common.keying import Bundle
from triparty.common.shielding import Shield
from triparty.device.inference.answer import FinishReason, Piece, Pieces
from triparty.device.inference.conversation import Conversation
from triparty.device.inference.generation import Question, pieces
from triparty.device.inference.options import GenerationOptions
from triparty.device.inference.speculation import Speculation

MAX_TEXTS_BYTES = 64 << 20


@dataclass(frozen=True)
class Shields:
    """What requests are shielded with, beside the keys.

    Attributes:
        noise: standard deviation of the noise on rows, as a share of their root mean square.
        to_bfloat16: whether rows are rounded to bfloat16.
        block: rows that requests and sessions are multiples of.
        decoys: texts that are asked beside each real one.
        decoy_texts: file to draw them from, one text a line.
        decoy_kind: how they are drawn.
    """

    noise: float = 0.0
    to_bfloat16: bool = False
    block: int = 1
    decoys: int = 0
    decoy_texts: Path | None = None
    decoy_kind: DecoyKind = DecoyKind.TEXT

    def __post_init__(self) -> None:
        """Refuses decoys without texts to draw them from."""
        if self.decoys and self.decoy_texts is None:
            raise SettingsError(
                f"{self.decoys} decoys need texts to be drawn from: name a file of texts like "
                "the real ones with decoy-texts"
            )

    def shield(self) -> Shield:
        """What becomes of the rows of one conversation."""
        return Shield.fresh(noise=self.noise, to_bfloat16=self.to_bfloat16)

    def refuse_without_rows(self, model: str) -> None:
        """Raises SettingsError if anything was chosen: there are no rows to shield."""
        if self != Shields():
            raise SettingsError(
                f"'{model}' is of the interface 'tokens', which sends ids and no rows: noise, "
                "bfloat16-rows, length-block and decoys are for the interface 'embeddings'"
            )

    def refuse_beside_guesses(self) -> None:
        """Raises SettingsError for what the guesses of an answer would give away."""
        if self.decoys:
            raise SettingsError(
                "decoys are told from the question by how well their answers are guessed: "
                "leave out speculate, or the decoys"
            )
        if self.block > 1:
            raise SettingsError(
                "length-block sends an answer row by row, so that nobody sees where it begins, "
                "and guesses go together: leave out speculate, or length-block"
            )

    def refuse_around_whole_texts(self, model: str, *, images: bool = False) -> None:
        """Raises SettingsError for what shields no whole text, or no image."""
        rows = Shields(noise=self.noise, to_bfloat16=self.to_bfloat16)
        if self != (Shields() if images else rows):
            raise SettingsError(
                f"'{model}' takes whole texts or images: length-block and decoys are for "
                "answers that go on from a prompt, noise and bfloat16-rows for rows of texts"
            )

    def refuse_around_a_source(self, model: str) -> None:
        """Raises SettingsError for what hides nothing about a text that is read whole."""
        if self.decoys or self.block > 1:
            raise SettingsError(
                f"'{model}' reads a whole text before it answers: length-block and decoys are "
                "for answers that go on from a prompt"
            )

    def refuse_around_an_image(self, model: str) -> None:
        """Raises SettingsError for what shields no image in a text, or would give it away."""
        if self.noise or self.decoys:
            raise SettingsError(
                f"noise and decoys are for texts without an image: the pixels that '{model}' "
                "takes get no noise, and a decoy has no image"
            )


class SpentTexts(Protocol):
    """Where a device remembers the texts that served as decoys."""

    def held(self) -> AbstractContextManager[None]:
        """Lets one answer at a time read and write."""

    def read(self) -> set[str]:
        """Digests of the texts that served."""

    def write(self, spent: set[str]) -> None:
        """Remembers them, before anything is sent."""


def shielded_pieces(
    question: Question,
    *,
    shields: Shields,
    bundle: Bundle,
    tokenizer: Tokenizer,
    conversation: Callable[[], Conversation],
    options: GenerationOptions,
    speculation: Speculation | None = None,
    spent: SpentTexts | None = None,
    random: Random | None = None,
) -> Pieces:
    """Yields the answer to a question as `generation.pieces` does, beside its decoys.

    Args:
        question: the real one.
        shields: how many decoys, and of what.
        bundle: opened bundle of the model.
        tokenizer: of the bundle.
        conversation: begins a conversation, one for each stream.
        options: how tokens are chosen and where an answer ends.
        speculation: guesses of the real answer, if shields allow any.
        spent: remembers which texts served; None begins anew.
        random: places and decoys; None draws from the operating system.

    Raises:
        SettingsError: texts that no decoy can be drawn from, or guesses beside shields that
            they would undo.
    """
    if speculation is not None:
        shields.refuse_beside_guesses()
    random = random or secrets.SystemRandom()
    questions = [question]
    if shields.decoys:
        with nullcontext() if spent is None else spent.held():
            texts = _read(shields, tokenizer, spent.read() if spent else set())
            drawn = [texts.draw(len(question.ids), random) for _ in range(shields.decoys)]
            if spent:
                spent.write(texts.spent)
        questions += [Question(ids, question.most) for ids in drawn]
    order = turns(len(questions), random)
    with ExitStack() as stack:
        streams = [
            pieces(
                questions[number],
                bundle=bundle,
                tokenizer=tokenizer,
                conversation=stack.enter_context(conversation()),
                options=options,
                speculation=speculation,
            )
            for number in order
        ]
        stack.enter_context(_closing(streams))
        return (yield from in_rounds(streams, real=order.index(0)))


def in_rounds(streams: Sequence[Pieces], *, real: int) -> Pieces:
    """The pieces of one stream, while all streams take a step in each round.

    Args:
        streams: in the order in which they take their steps.
        real: place of the one whose pieces are wanted.
    """
    running = dict(enumerate(streams))
    reasons: dict[int, FinishReason] = {}
    while running:
        wanted: Piece | None = None
        for place, stream in list(running.items()):
            try:
                piece = next(stream)
            except StopIteration as end:
                reasons[place] = end.value
                del running[place]
            else:
                wanted = piece if place == real else wanted
        if wanted is not None:
            yield wanted
    return reasons[real]


@contextmanager
def _closing(streams: Sequence[Pieces]) -> Iterator[None]:
    try:
        yield
    finally:
        for stream in streams:
            stream.close()


def _read(shields: Shields, tokenizer: Tokenizer, spent: set[str]) -> DecoyTexts:
    path = shields.decoy_texts or Path()
    try:
        if path.stat().st_size > MAX_TEXTS_BYTES:
            raise SettingsError(f"{path} has more than {MAX_TEXTS_BYTES >> 20} MB of texts")
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        raise SettingsError(f"cannot read {path}: {error.strerror}") from error
    encoded = tokenizer.encode_batch([line for line in lines if line.strip()])
    ids = [np.array(text.ids, np.int64) for text in encoded]
    return DecoyTexts(ids, shields.decoy_kind, spent)
