"""A device of one model over a small cloud, as the endpoint uses it."""

from __future__ import annotations

from pathlib import Path

from small_cloud import SmallCloud, small_bundle

from triparty.common.errors import TripartyError
from triparty.device.home import HeldModel
from triparty.device.inference.answer import Pieces
from triparty.device.inference.conversation import Conversation
from triparty.device.inference.generation import (
    Parts,
    Question,
    collect,
    pieces,
    read_tokenizer,
)
from triparty.device.inference.kept import Kept
from triparty.device.inference.opened import OpenedModel, Prompt
from triparty.device.inference.options import GenerationOptions

URL = "http://127.0.0.1:8765"


class SmallDevice:
    """The parts of `Device` that the endpoint uses, over a small cloud."""

    def __init__(self, folder: Path) -> None:
        held = HeldModel("known", 1, 1)
        bundle = small_bundle(folder)
        self.opened = OpenedModel(held, bundle, read_tokenizer(bundle), None)
        self.cloud = SmallCloud()
        self.error: TripartyError | None = None
        self.error_after = 0

    def models(self) -> list[HeldModel]:
        return [self.opened.held]

    def open(self, model: str) -> OpenedModel:
        return self.opened

    def stream(
        self,
        model: str,
        prompt: Prompt,
        *,
        options: GenerationOptions,
        kept: Kept | None = None,
    ) -> Parts:
        question = self.opened.question(prompt, options)
        answer = self.pieces(model, question, options, kept)
        for count, part in enumerate(collect(answer, question=question)):
            if self.error is not None and count == self.error_after:
                raise self.error
            yield part

    def pieces(
        self, model: str, question: Question, options: GenerationOptions, kept: Kept | None
    ) -> Pieces:
        bundle, tokenizer = self.opened.bundle, self.opened.tokenizer
        with Conversation(self.cloud, bundle, model, version=1, kept=kept) as conversation:
            return (
                yield from pieces(
                    question,
                    bundle=bundle,
                    tokenizer=tokenizer,
                    conversation=conversation,
                    options=options,
                )
            )

    def end(self, model: str, kept: Kept) -> None:
        assert kept.session is not None
        self.cloud.close_session(kept.session.id)
        kept.session = None
