"""Which encoders are served, with which heads.

The name of a class in a configuration picks a row of the table below and nothing else: what is
not in the table is refused. As in `families.py`, a configuration is rebuilt from the keys that
the stock class declares.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    BertModel,
    CLIPConfig,
    CLIPModel,
    LongformerConfig,
    LongformerForMaskedLM,
    LongformerForSequenceClassification,
    LongformerModel,
    PreTrainedConfig,
    PreTrainedModel,
    ViTConfig,
    ViTForImageClassification,
)

from triparty.cloud.serving.engine import EncoderInfo, ImageInput, ReplyKind, TextInput
from triparty.cloud.serving.families import Family, check_layer_count, config_of
from triparty.common.errors import CheckpointError, UnsupportedModelError

MAX_LABELS = 1 << 16
LONGFORMER = "longformer"


@dataclass(frozen=True)
class Head:
    """What a class of a family answers.

    Attributes:
        model: the stock class.
        reply: kind of the answer.
        output: the member of the class's output that is the answer.
        per_row: whether every row has one.
        size: the configuration's key for the elements of an answer.
    """

    model: type[PreTrainedModel]
    reply: ReplyKind
    output: str
    per_row: bool
    size: str


def masked_lm(model: type[PreTrainedModel]) -> Head:
    """Logits of the vocabulary for every row."""
    return Head(model, ReplyKind.LOGITS, "logits", per_row=True, size="vocab_size")


def classifier(model: type[PreTrainedModel]) -> Head:
    """Logits of labels."""
    return Head(model, ReplyKind.LOGITS, "logits", per_row=False, size="num_labels")


def bare(model: type[PreTrainedModel]) -> Head:
    """The last hidden state of every row."""
    return Head(model, ReplyKind.HIDDEN, "last_hidden_state", per_row=True, size="hidden_size")


@dataclass(frozen=True)
class EncoderFamily:
    """A served family of encoders.

    Attributes:
        config: stock configuration.
        heads: by the name of their class.
        text: whether it takes texts.
        image: whether it takes images.
        sections: configurations inside the configuration.
    """

    config: type[PreTrainedConfig]
    heads: tuple[Head, ...]
    text: bool = True
    image: bool = False
    sections: tuple[str, ...] = ()

    def head_of(self, raw: Mapping[str, Any]) -> Head:
        """The head that a configuration file names.

        Raises:
            UnsupportedModelError: another class.
        """
        served = {head.model.__name__: head for head in self.heads}
        named = raw.get("architectures")
        for name, head in served.items():
            if named == [name]:
                return head
        raise UnsupportedModelError(
            f"architectures {named!r} are not served; served are {', '.join(served)}"
        )


ENCODERS: Mapping[str, EncoderFamily] = {
    "bert": EncoderFamily(
        BertConfig,
        (
            masked_lm(BertForMaskedLM),
            classifier(BertForSequenceClassification),
            bare(BertModel),
        ),
    ),
    LONGFORMER: EncoderFamily(
        LongformerConfig,
        (
            masked_lm(LongformerForMaskedLM),
            classifier(LongformerForSequenceClassification),
            bare(LongformerModel),
        ),
    ),
    "vit": EncoderFamily(
        ViTConfig, (classifier(ViTForImageClassification),), text=False, image=True
    ),
    "clip": EncoderFamily(
        CLIPConfig,
        (
            Head(
                CLIPModel,
                ReplyKind.HIDDEN,
                "pooler_output",
                per_row=False,
                size="projection_dim",
            ),
        ),
        image=True,
        sections=("text_config", "vision_config"),
    ),
}
"""The served encoders by `model_type`."""


def encoder_of(raw: Mapping[str, Any]) -> EncoderFamily | None:
    """The family of encoders that a configuration file names, or None."""
    name = raw.get("model_type")
    return ENCODERS.get(name) if isinstance(name, str) else None


def encoder_config(
    raw: Mapping[str, Any], family: EncoderFamily, head: Head, *, tensors: int
) -> PreTrainedConfig:
    """The configuration, from the keys that the stock classes themselves declare.

    Args:
        raw: the configuration file.
        family: what it names.
        head: what it names.
        tensors: how many the checkpoint has; no model has more layers.

    Raises:
        UnsupportedModelError: an option that is not served.
        CheckpointError: values that make no sense.
    """
    if raw.get("is_decoder"):
        raise UnsupportedModelError("is_decoder is not served: an encoder sees whole texts")
    allowed = dict(raw)
    for name in family.sections:
        allowed[name] = section_of(raw, name, family.config.sub_configs[name], tensors=tensors)
    config = config_of(
        allowed, Family(family.config, head.model, older_keys=()), tensors=tensors
    )
    if head.size == "num_labels":
        config.num_labels = _label_count(raw)
    return config


def encoder_info(
    config: PreTrainedConfig, family: EncoderFamily, head: Head, *, takes_ids: bool
) -> EncoderInfo:
    """What serving must know of a model.

    Args:
        config: as `encoder_config` made it.
        family: its family.
        head: its head.
        takes_ids: whether its embedding is real, so that texts come as keyed ids.

    Raises:
        CheckpointError: no text or image fits.
    """
    return EncoderInfo(
        family=config.model_type,
        reply=head.reply,
        outputs=getattr(config, head.size),
        per_row=head.per_row,
        text=_text(config, takes_ids=takes_ids) if family.text else None,
        image=image_input(config) if family.image else None,
    )


def window_of(config: PreTrainedConfig) -> int:
    """The widest window of a Longformer's layers; 1 of any other model."""
    if config.model_type != LONGFORMER:
        return 1
    given = config.attention_window
    windows = given if isinstance(given, list) else [given]
    known = all(type(width) is int and width > 0 for width in windows)
    if not known or not 0 < max(windows, default=0) <= config.max_position_embeddings:
        raise CheckpointError(
            f"attention_window is a number of tokens from 1 to the model's "
            f"{config.max_position_embeddings} positions, got {given!r}"
        )
    widest: int = max(windows)
    return widest


def section_of(
    raw: Mapping[str, Any], name: str, kind: type[PreTrainedConfig], *, tensors: int
) -> dict[str, Any]:
    """A configuration inside a configuration: the keys that its stock class declares.

    Raises:
        CheckpointError: there is none, or it has more layers than there are tensors.
    """
    given = raw.get(name)
    if not isinstance(given, dict):
        raise CheckpointError(f"config.json has no {name}")
    check_layer_count(given, tensors=tensors)
    known = {*kind.__annotations__, *kind.attribute_map}
    return {key: value for key, value in given.items() if key in known}


def image_input(config: PreTrainedConfig) -> ImageInput:
    """The images that a configuration, or its `vision_config`, says a model takes.

    Raises:
        CheckpointError: none that its patches divide.
    """
    holder = getattr(config, "vision_config", config)
    size, patch, channels = holder.image_size, holder.patch_size, holder.num_channels
    sides = (size, patch, channels)
    if not all(type(n) is int and n > 0 for n in sides) or size % patch:
        raise CheckpointError(
            f"an image has a size that its patches divide, and channels, got {sides}"
        )
    return ImageInput((channels, size, size), 1 + (size // patch) ** 2)


def _text(config: PreTrainedConfig, *, takes_ids: bool) -> TextInput:
    holder = getattr(config, "text_config", config)
    is_long = config.model_type == LONGFORMER
    positions: int = holder.max_position_embeddings
    if is_long:  # it counts from the padding token on, and pads rows to whole windows
        window = window_of(config)
        used = positions - 1 - (config.pad_token_id or 0)
        positions = used if takes_ids else min(used, (positions - 1) // window * window)
    if positions < 1:
        raise CheckpointError(f"{holder.max_position_embeddings} positions leave no room")
    types = getattr(config, "type_vocab_size", 0) if takes_ids else 0
    return TextInput(
        positions=positions,
        width=None if takes_ids else holder.hidden_size,
        vocabulary=holder.vocab_size,
        types=types,
        attends_globally=is_long,
    )


def _label_count(raw: Mapping[str, Any]) -> int:
    names = raw.get("id2label")
    count = len(names) if isinstance(names, dict) else raw.get("num_labels", 2)
    if type(count) is not int or not 0 < count <= MAX_LABELS:
        raise CheckpointError(f"num_labels is from 1 to {MAX_LABELS}, got {count!r}")
    return count
