"""A conversation with a model: what was said, and the next answer to it."""

from __future__ import annotations

import json
from collections.abc import Generator
from contextlib import closing
from pathlib import Path

from triparty.common.errors import RequestError, SettingsError
from triparty.common.files import write_private
from triparty.device.client import Device
from triparty.device.inference.answer import Piece
from triparty.device.inference.generation import Generation
from triparty.device.inference.kept import Kept
from triparty.device.inference.opened import OpenedModel
from triparty.device.inference.options import GenerationOptions
from triparty.device.inference.traffic import Traffic

MIN_ROOM = 256
"""Tokens that an answer should have room for, of a model with more than four times as many."""

Said = dict[str, str]


class Dialogue:
    """The messages of one conversation.

    Args:
        device: asks.
        model: name of a model with a chat template.
        options: of every answer.
        system: what the model is told first, if anything.

    Raises:
        StateError: no bundle of this model.
        RequestError: a model without a chat template.
    """

    def __init__(
        self,
        device: Device,
        model: str,
        options: GenerationOptions,
        *,
        system: str | None = None,
    ) -> None:
        """Nothing is said yet."""
        self._device, self.model, self._options = device, model, options
        opened = device.open(model)
        if opened.template is None:
            raise RequestError(
                f"'{model}' has no chat template, so it does not know conversations: continue "
                "a text with 'triparty device generate'"
            )
        self._opening: list[Said] = [] if system is None else [_said("system", system)]
        self.turns: list[Said] = []
        self.traffic = Traffic()
        """What went over the wire for the last turn."""
        self._kept = Kept()
        self.forgotten = 0
        """Turns that are not told to the model any more: it has no room for them."""

    @property
    def opened(self) -> OpenedModel:
        """The model."""
        return self._device.open(self.model)

    @property
    def messages(self) -> list[Said]:
        """What the model is told, the oldest turns left out if there is no room."""
        return [*self._opening, *self.turns[2 * self.forgotten :]]

    def ask(self, text: str) -> Generator[Piece | Generation, None, None]:
        """Says something; yields the answer as it comes.

        An answer that is not read to its end stays as far as it came; a question that failed
        is as if it had not been asked.
        """
        self.turns.append(_said("user", text))
        heard: list[str] = []
        forgotten = self.forgotten
        try:
            self._forget()
            self.traffic = Traffic()
            parts = self._device.stream(
                self.model,
                self.messages,
                options=self._options,
                traffic=self.traffic,
                kept=self._kept,
            )
            with closing(parts):
                for part in parts:
                    if isinstance(part, Piece):
                        heard.append(part.text)
                    yield part
        finally:
            if "".join(heard).strip():
                self.turns.append(_said("assistant", "".join(heard)))
            else:
                self.turns.pop()
                self.forgotten = forgotten

    def clear(self) -> None:
        """Forgets everything but the opening."""
        self.close()
        self.turns, self.forgotten, self.traffic = [], 0, Traffic()

    def close(self) -> None:
        """Ends the session on the cloud; the conversation can go on with another."""
        self._device.end(self.model, self._kept)
        self._kept = Kept()

    def save(self, file: Path) -> None:
        """Writes all turns as JSON, readable by the user alone.

        Raises:
            SettingsError: the file is there already, or cannot be written.
        """
        if file.exists():
            raise SettingsError(f"{file} is there already: name another file")
        document = {"model": self.model, "messages": [*self._opening, *self.turns]}
        try:
            data = json.dumps(document, indent=2, ensure_ascii=False).encode()
            write_private(file, data + b"\n")
        except OSError as error:
            raise SettingsError(f"cannot write {file}: {error.strerror}") from error

    def _forget(self) -> None:
        """Leaves out the oldest turns until there is room for an answer."""
        opened = self.opened
        positions = opened.bundle.info.max_positions
        least = min(MIN_ROOM, positions // 4, self._options.max_tokens or MIN_ROOM)
        while True:
            is_only = len(self.turns) <= 2 * self.forgotten + 1
            try:
                if is_only or opened.question(self.messages, self._options).most >= least:
                    return
            except RequestError:
                if is_only:
                    raise
            self.forgotten += 1


def _said(role: str, content: str) -> Said:
    return {"role": role, "content": content}
