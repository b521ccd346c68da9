"""Which models are served that answer texts with images in them.

Such a model is served in two parts: the decoder, by sessions of rows like any other, and what
makes rows of images, by forward requests like an encoder. The device puts those rows into its
session where the image stands in its text, so that a session knows nothing of images.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from transformers import (
    CLIPVisionConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    PreTrainedConfig,
    PreTrainedModel,
)

from triparty.cloud.serving.encoder_families import image_input, section_of
from triparty.cloud.serving.engine import EncoderInfo, ReplyKind
from triparty.cloud.serving.families import FAMILIES, Family, config_of
from triparty.common.errors import CheckpointError, UnsupportedModelError


@dataclass(frozen=True)
class VisualFamily:
    """A served family of decoders that see.

    Attributes:
        config: stock configuration.
        model: stock model.
        text: the family of its decoder, by `model_type`.
        vision: the `model_type` of its tower, and the tower's stock configuration.
    """

    config: type[PreTrainedConfig]
    model: type[PreTrainedModel]
    text: str
    vision: tuple[str, type[PreTrainedConfig]]


VISUAL: Mapping[str, VisualFamily] = {
    "llava": VisualFamily(
        LlavaConfig,
        LlavaForConditionalGeneration,
        text="llama",
        vision=("clip_vision_model", CLIPVisionConfig),
    ),
}
"""The served families by `model_type`."""


def visual_of(raw: Mapping[str, Any]) -> VisualFamily | None:
    """The family of decoders that see that a configuration file names, or None."""
    name = raw.get("model_type")
    return VISUAL.get(name) if isinstance(name, str) else None


def visual_config(
    raw: Mapping[str, Any], family: VisualFamily, *, tensors: int
) -> PreTrainedConfig:
    """The configuration, from the keys that the stock classes themselves declare.

    Args:
        raw: the configuration file.
        family: what it names.
        tensors: how many the checkpoint has; no model has more layers.

    Raises:
        UnsupportedModelError: an option that is not served.
        CheckpointError: values that make no sense.
    """
    kind, tower = family.vision
    text = _section_of_type(raw, "text_config", family.text)
    _section_of_type(raw, "vision_config", kind)
    allowed = {
        **raw,
        "text_config": config_of(text, FAMILIES[family.text], tensors=tensors),
        "vision_config": tower(**section_of(raw, "vision_config", tower, tensors=tensors)),
    }
    own = Family(family.config, family.model, older_keys=())
    return config_of(allowed, own, tensors=tensors)


def sight_info(config: PreTrainedConfig) -> EncoderInfo:
    """What serving must know of the part that makes rows of images.

    Raises:
        CheckpointError: no image fits.
    """
    return EncoderInfo(
        family=config.model_type,
        reply=ReplyKind.HIDDEN,
        outputs=config.get_text_config().hidden_size,
        per_row=True,
        image=image_input(config),
    )


def _section_of_type(raw: Mapping[str, Any], name: str, wanted: str) -> Mapping[str, Any]:
    """A section, if it is of the family that is served."""
    section = raw.get(name)
    if not isinstance(section, dict):
        raise CheckpointError(f"config.json has no {name}")
    if section.get("model_type") != wanted:
        raise UnsupportedModelError(
            f"{name} of model_type {section.get('model_type')!r} is not served in a "
            f"{raw.get('model_type')} model; served is {wanted}"
        )
    return section
