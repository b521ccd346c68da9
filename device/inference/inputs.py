"""What somebody gives to an encoder: texts and images, answered in order."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from triparty.common.keying import Bundle
from triparty.device.inference.forwarding import (
    Answer,
    Forward,
    TextIds,
    TextLike,
    text_ids,
)
from triparty.device.inference.generation import read_tokenizer
from triparty.device.inference.images import Pixels, pixels_of

if TYPE_CHECKING:
    from triparty.device.inference.images import ImageLike

    Input = TextLike | ImageLike

_CALLER = 5  # this function, `Inputs.prepare`, `Device._answers`, `Device.embed`, its caller

OnShortened = Callable[[str], None]
"""Told in one line which texts are longer than the model takes."""


def warn_shortened(line: str) -> None:
    """Warns as Python does, about the line that called the device."""
    warnings.warn(line, stacklevel=_CALLER)


@dataclass(frozen=True, eq=False)
class Inputs:
    """Prepared texts and images.

    Attributes:
        items: in the order in which they were given.
    """

    items: tuple[TextIds | Pixels, ...]

    @classmethod
    def prepare(
        cls, given: Sequence[Input], bundle: Bundle, *, on_shortened: OnShortened
    ) -> Inputs:
        """Texts as tokens, images as pixels.

        Args:
            given: texts for a model that takes some; all else are images.
            bundle: of the model.
            on_shortened: told if texts are too long.

        Raises:
            RequestError: a text without tokens, or no image.
            SettingsError: an image, and Pillow is not installed.
            CheckpointError: a bundle whose files are damaged.
        """
        takes_text = bundle.info.vocabulary > 0
        texts = {
            at: each
            for at, each in enumerate(given)
            if takes_text and isinstance(each, str | tuple)
        }
        items: dict[int, TextIds | Pixels] = {}
        if texts:
            encoding, positions = bundle.encoding(), bundle.info.max_positions
            tokenizer = read_tokenizer(bundle)
            made = text_ids(list(texts.values()), tokenizer, encoding, positions=positions)
            items |= zip(texts, made, strict=True)
            long = [str(at) for at, text in zip(texts, made, strict=True) if text.is_shortened]
            if long:
                on_shortened(
                    f"{len(long)} of {len(given)} texts are longer than the model takes "
                    f"({min(positions, encoding.max_tokens or positions)} tokens); their ends "
                    f"are left out: number {', '.join(long[:8])}{' ...' if long[8:] else ''}"
                )
        for at, each in enumerate(given):
            if at not in texts:
                items[at] = pixels_of(each, bundle)  # type: ignore[arg-type]  # no text
        return cls(tuple(items[at] for at in range(len(given))))

    @property
    def has_images(self) -> bool:
        """Whether there is any image."""
        return not all(isinstance(item, TextIds) for item in self.items)

    @property
    def has_texts(self) -> bool:
        """Whether there is any text."""
        return any(isinstance(item, TextIds) for item in self.items)

    def answers(self, forward: Forward) -> list[Answer]:
        """What the model says of each; see `Forward.texts` for errors."""
        texts = [item for item in self.items if isinstance(item, TextIds)]
        images = [item for item in self.items if not isinstance(item, TextIds)]
        of_texts, of_images = iter(forward.texts(texts)), iter(forward.images(images))
        return [
            next(of_texts if isinstance(item, TextIds) else of_images) for item in self.items
        ]
