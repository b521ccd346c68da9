"""Image classifiers: the logits of the labels of each image."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from triparty.common.deviceinfo import DeviceInfo, ImageInfo
from triparty.common.errors import CheckpointError
from triparty.common.keying import Bundle
from triparty.developer.answers.task import Answers, as_array

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Pixels = NDArray[np.floating[Any]]
"""Images (B, C, S, S) as numbers, normalised as a model expects them."""

IMAGES = 64


class ImageTask:
    """Images in, the logits of their labels out."""

    auto_class = "AutoModelForImageClassification"

    def sample(self, info: DeviceInfo, count: int, rng: np.random.Generator) -> Pixels:
        """Images of noise."""
        return noise(image_of(info), min(count, IMAGES), rng)

    def original(self, model: PreTrainedModel, sample: Pixels) -> Answers:
        """Logits (B, L) of the labels."""
        return _logits(model, sample)

    def protected(self, model: PreTrainedModel, bundle: Bundle, sample: Pixels) -> Answers:
        """The same of the protected model, undone."""
        keyed: Any = _logits(model, keyed_pixels(bundle, sample))
        return bundle.plain_logits(keyed)


def image_of(info: DeviceInfo) -> ImageInfo:
    """The images of a model that takes some.

    Raises:
        CheckpointError: it takes none.
    """
    if info.image is None:
        raise CheckpointError(f"device.json: a model of the task {info.task!r} takes images")
    return info.image


def noise(image: ImageInfo, count: int, rng: np.random.Generator) -> Pixels:
    """Images (count, C, S, S) of standard normal pixels, float32."""
    shape = (count, image.channels, image.size, image.size)
    return rng.standard_normal(shape, np.float32)


def keyed_pixels(bundle: Bundle, pixels: Pixels) -> Pixels:
    """What a device sends of some images: the pixels (B, C, S, S), keyed."""
    return np.stack([bundle.pixels(each) for each in pixels])


def _logits(model: PreTrainedModel, pixels: Pixels) -> Answers:
    import torch

    with torch.inference_mode():
        return as_array(model(pixel_values=torch.from_numpy(pixels).to(model.dtype)).logits)
