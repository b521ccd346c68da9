"""A model that this device holds, opened: everything that answering needs, read once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer

from triparty.common.errors import RequestError
from triparty.common.keying import Bundle
from triparty.device.home import HeldModel
from triparty.device.inference.chat_template import ChatTemplate, Message
from triparty.device.inference.generation import Question, question_of, read_tokenizer
from triparty.device.inference.options import GenerationOptions

Prompt = str | Sequence[int] | Sequence[Message]
"""A text to continue, its token ids, or the messages of a conversation."""


@dataclass(frozen=True, eq=False)
class OpenedModel:
    """A language model's bundle and tokenizer.

    Attributes:
        held: its name, version and epoch.
        bundle: opened.
        tokenizer: of the bundle.
        template: how a conversation becomes a prompt, if the model says.
    """

    held: HeldModel
    bundle: Bundle
    tokenizer: Tokenizer
    template: ChatTemplate | None

    @classmethod
    def open(cls, held: HeldModel, folder: Path) -> OpenedModel:
        """Opens the bundle in a folder.

        Raises:
            CheckpointError: a file of it is missing or broken.
            RequestError: a model of another kind: a classifier, an encoder.
        """
        bundle = Bundle.open(folder)
        if bundle.info.task != "causal-lm":
            raise RequestError(
                f"'{held.name}' writes no text that goes on from a prompt: its task is "
                f"{bundle.info.task}"
            )
        return cls(held, bundle, read_tokenizer(bundle), ChatTemplate.of(bundle))

    def question(self, prompt: Prompt, options: GenerationOptions) -> Question:
        """The token ids of a prompt, if they leave room for an answer.

        Raises:
            RequestError: a prompt without tokens or too long, ids that are no tokens,
                messages for a model without a chat template, or ones that it refuses.
            CheckpointError: the chat template is broken.
        """
        return question_of(self._ids(prompt), self.bundle, options)

    def token_text(self, token: int) -> str:
        """What one token adds to a text."""
        once, twice = (self.tokenizer.decode([token] * n, False) for n in (1, 2))
        return twice[len(once) :] or once

    def _ids(self, prompt: Prompt) -> list[int]:
        if isinstance(prompt, str):
            return list(self.tokenizer.encode(prompt).ids)
        if all(type(one) is int for one in prompt):
            ids = [one for one in prompt if isinstance(one, int)]
            if not all(0 <= one < self.bundle.info.vocabulary for one in ids):
                raise RequestError(
                    f"expected token ids from 0 to {self.bundle.info.vocabulary - 1}"
                )
            return ids
        if self.template is None:
            raise RequestError(
                f"'{self.held.name}' has no chat template, so it does not know conversations: "
                "give it a text to continue"
            )
        messages = [one for one in prompt if not isinstance(one, int | str)]
        if len(messages) != len(prompt):
            raise RequestError(
                "a prompt is a text, token ids, or messages with role and content"
            )
        text = self.template.render(messages)
        return list(self.tokenizer.encode(text, add_special_tokens=False).ids)
