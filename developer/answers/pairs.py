"""Texts and images in one space: where each of them lies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from triparty.common.deviceinfo import DeviceInfo
from triparty.common.keying import Bundle
from triparty.developer.answers.causal import Texts, keyed_inputs
from triparty.developer.answers.images import IMAGES, Pixels, image_of, keyed_pixels, noise
from triparty.developer.answers.task import Answers, as_array

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel


@dataclass(frozen=True, eq=False)
class Pairs:
    """As many texts as images.

    Attributes:
        texts: B of them, each with the model's end token; padded on the right.
        pixels: (B, C, S, S).
    """

    texts: Texts
    pixels: Pixels


class PairTask:
    """Texts and images in, their places in the joint space out, not normalised."""

    auto_class = "AutoModel"

    def sample(self, info: DeviceInfo, count: int, rng: np.random.Generator) -> Pairs:
        """Random texts that end, and images of noise."""
        batch = min(-(-count // 2), IMAGES)
        length = min(16, info.max_positions)
        ids = rng.integers(0, info.vocabulary, (batch, length))
        ids[:, -1] = info.eos_ids[0]
        return Pairs(Texts.unpadded(ids), noise(image_of(info), batch, rng))

    def original(self, model: PreTrainedModel, sample: Pairs) -> Answers:
        """The places (2 B, P) of the texts, then of the images."""
        return _places(model, {"input_ids": sample.texts.ids}, sample, sample.pixels)

    def protected(self, model: PreTrainedModel, bundle: Bundle, sample: Pairs) -> Answers:
        """The same of the protected model, undone."""
        inputs = keyed_inputs(bundle, sample.texts)
        keyed: Any = _places(model, inputs, sample, keyed_pixels(bundle, sample.pixels))
        return bundle.plain_logits(keyed)


def _places(
    model: PreTrainedModel, inputs: dict[str, Any], sample: Pairs, pixels: Pixels
) -> Answers:
    import torch

    tensors: dict[str, torch.Tensor] = {
        name: torch.from_numpy(array) for name, array in inputs.items()
    }
    stock: Any = model
    with torch.inference_mode():
        texts = stock.get_text_features(
            **tensors, attention_mask=torch.from_numpy(sample.texts.mask).long()
        )
        images = stock.get_image_features(pixel_values=torch.from_numpy(pixels).to(model.dtype))
    return np.concatenate([as_array(texts.pooler_output), as_array(images.pooler_output)])
