"""Which encoders with decoders are served: a session answers a text that was read whole."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from transformers import (
    MT5Config,
    MT5ForConditionalGeneration,
    PreTrainedConfig,
    T5Config,
    T5ForConditionalGeneration,
)

from triparty.cloud.serving.families import Family, config_of
from triparty.common.errors import UnsupportedModelError

_READ = ("tie_word_embeddings", "scale_decoder_outputs")

SEQ2SEQ: Mapping[str, Family] = {
    "mt5": Family(MT5Config, MT5ForConditionalGeneration, older_keys=_READ),
    "t5": Family(T5Config, T5ForConditionalGeneration, older_keys=_READ),
}
"""The served families by `model_type`."""


def seq2seq_of(raw: Mapping[str, Any]) -> Family | None:
    """The encoder with a decoder that a configuration file names, or None."""
    name = raw.get("model_type")
    return SEQ2SEQ.get(name) if isinstance(name, str) else None


def seq2seq_config(raw: Mapping[str, Any], family: Family, *, tensors: int) -> PreTrainedConfig:
    """The configuration, from the keys that the stock class itself declares.

    Args:
        raw: the configuration file.
        family: what it names.
        tensors: how many the checkpoint has; no model has more layers.

    Raises:
        UnsupportedModelError: an option that is not served.
        CheckpointError: values that make no sense.
    """
    for name, served in (("is_encoder_decoder", True), ("is_decoder", False)):
        if raw.get(name, served) is not served:
            raise UnsupportedModelError(f"{name} {raw[name]!r} is not served; leave it out")
    return config_of(raw, family, tensors=tensors)
