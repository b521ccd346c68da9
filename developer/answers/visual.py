"""Texts with images in them: the logits of the next token at every place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from triparty.common.deviceinfo import TOKENS, DeviceInfo
from triparty.common.errors import CheckpointError
from triparty.common.keying import Bundle
from triparty.developer.answers.causal import Texts, text_logits
from triparty.developer.answers.images import Pixels, image_of, keyed_pixels, noise
from triparty.developer.answers.task import Answers

if TYPE_CHECKING:
    from transformers import PreTrainedModel

WORDS = 16
"""Tokens of a random text beside its image's."""


@dataclass(frozen=True, eq=False)
class VisualTexts:
    """Texts, each with one image.

    Attributes:
        texts: B of them; image tokens stand where the image goes, and nowhere else.
        pixels: (B, C, S, S).
    """

    texts: Texts
    pixels: Pixels


class VisualTask:
    """Texts and images in, the logits of every next token out."""

    auto_class = "AutoModelForImageTextToText"

    def sample(self, info: DeviceInfo, count: int, rng: np.random.Generator) -> VisualTexts:
        """A random text around an image of noise."""
        image = image_of(info)
        words = max(1, min(WORDS, info.max_positions - image.tokens))
        ids = words_of(info, (1, words), rng)
        return VisualTexts(
            Texts.unpadded(with_image(info, ids, at=words // 2)), noise(image, 1, rng)
        )

    def original(self, model: PreTrainedModel, sample: VisualTexts) -> Answers:
        """Logits (N, V) of the N tokens of the texts, those of images among them."""
        inputs = {"input_ids": sample.texts.ids, "pixel_values": sample.pixels}
        return text_logits(model, sample.texts, inputs)

    def protected(self, model: PreTrainedModel, bundle: Bundle, sample: VisualTexts) -> Answers:
        """The same of the protected model, undone."""
        keyed: Any = text_logits(model, sample.texts, keyed_visual_inputs(bundle, sample))
        return bundle.plain_logits(keyed)


def words_of(
    info: DeviceInfo, shape: tuple[int, int], rng: np.random.Generator
) -> NDArray[np.int64]:
    """Random token ids that stand for no image."""
    ids = rng.integers(0, info.vocabulary - 1, shape)
    return ids + (ids >= token_of(info))


def with_image(info: DeviceInfo, ids: NDArray[np.int64], *, at: int) -> NDArray[np.int64]:
    """The texts (B, T) with the tokens of an image before their token `at`."""
    places = np.full((len(ids), image_of(info).tokens), token_of(info))
    return np.concatenate([ids[:, :at], places, ids[:, at:]], axis=1)


def token_of(info: DeviceInfo) -> int:
    """The token that stands for images in a text.

    Raises:
        CheckpointError: none does.
    """
    token = image_of(info).token_id
    if token is None:
        raise CheckpointError("device.json: no token stands for images in a text")
    return token


def keyed_visual_inputs(bundle: Bundle, sample: VisualTexts) -> dict[str, NDArray[Any]]:
    """What a device sends: keyed ids or rows (B, T, D), and keyed pixels (B, C, S, S).

    Padding is a token that stands for no image: the cloud would look for one there.
    """
    token, texts = token_of(bundle.info), sample.texts
    ids = np.where(texts.mask, texts.ids, 1 if token == 0 else 0)
    pixels = {"pixel_values": keyed_pixels(bundle, sample.pixels)}
    if bundle.info.interface == TOKENS:
        return {"input_ids": np.stack([bundle.keyed_ids(text) for text in ids]), **pixels}
    rows = [bundle.values(text, start=0, images=True) for text in ids]
    return {"inputs_embeds": np.stack(rows), **pixels}
