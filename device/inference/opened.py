"""A model that this device holds, opened: everything that answering needs, read once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tokenizers import Tokenizer

from triparty.common.deviceinfo import SEQ2SEQ_TASK
from triparty.common.errors import RequestError
from triparty.common.keying import Bundle
from triparty.device.home import HeldModel
from triparty.device.inference.chat_template import ChatTemplate, Message
from triparty.device.inference.generation import Question, question_of, read_tokenizer
from triparty.device.inference.options import GenerationOptions
from triparty.device.inference.pictures import (
    VISUAL_TASK,
    check_no_image,
    image_of,
    with_place,
)

TEXT_TASKS = ("causal-lm", SEQ2SEQ_TASK, VISUAL_TASK)

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
        if bundle.info.task not in TEXT_TASKS:
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
        ids, info = self._ids(prompt), self.bundle.info
        check_no_image(ids, info)
        if info.task != SEQ2SEQ_TASK or info.bos_id is None:
            return question_of(ids, self.bundle, options)
        asked = question_of(ids, self.bundle, options)  # is there something to read?
        return replace(asked, ids=[info.bos_id], source=tuple(ids))

    def question_about_image(self, prompt: Prompt, options: GenerationOptions) -> Question:
        """The token ids of a prompt with an image in it.

        Where the image stands is said by its token in the prompt, or by content of the type
        `image` in a message. A text without either is asked as the model's chat template puts
        it, if it has one; else the image comes before it.

        Raises:
            RequestError: as `question`; a model that takes no images with rows, messages
                without a place for the image, or with several.
            CheckpointError: the chat template is broken.
        """
        info = self.bundle.info
        image, token = image_of(info, self.held.name)
        ids = self._ids(prompt)
        if token not in ids and self.template is not None:
            if not isinstance(prompt, str):
                raise RequestError(
                    "no message has a place for the image: give one a content like "
                    '[{"type": "image"}, {"type": "text", "text": "..."}]'
                )
            content = [{"type": "image"}, {"type": "text", "text": prompt}]
            ids = self._ids([{"role": "user", "content": content}])
        ids, first = with_place(ids, image, token, bos_id=info.bos_id)
        return replace(question_of(ids, self.bundle, options), image_at=first)

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
