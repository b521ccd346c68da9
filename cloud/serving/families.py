"""Which model families are served, and with which options.

A family is one row of the table: its stock classes, and how its checkpoints differ from what
the class holds. A configuration is rebuilt from the keys that the stock class declares; what
the packed engine cannot serve exactly is refused here, by name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import (
    DeepseekV3Config,
    DeepseekV3ForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GemmaConfig,
    GemmaForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from triparty.common.errors import CheckpointError, UnsupportedModelError


@dataclass(frozen=True)
class Experts:
    """How checkpoints write the experts of a layer, which the class holds in two tensors.

    Attributes:
        block: what checkpoints call the layer's `mlp`.
        gate: an expert's gate, first half of the rows of `mlp.experts.gate_up_proj`.
        up: its up projection, the second half.
        down: its down projection, in `mlp.experts.down_proj`.
        width: the configuration's key for the neurons of an expert.
    """

    block: str
    gate: str
    up: str
    down: str
    width: str


@dataclass(frozen=True)
class Family:
    """A served family.

    Attributes:
        config: stock configuration.
        model: stock model.
        older_keys: configuration keys that the class reads without declaring them.
        experts: how checkpoints write its experts, if it has any.
    """

    config: type[PreTrainedConfig]
    model: type[PreTrainedModel]
    older_keys: tuple[str, ...] = ("rope_theta", "rope_scaling")
    experts: Experts | None = None


FAMILIES: Mapping[str, Family] = {
    "gpt2": Family(GPT2Config, GPT2LMHeadModel),
    "llama": Family(LlamaConfig, LlamaForCausalLM),
    "mistral": Family(MistralConfig, MistralForCausalLM),
    "qwen2": Family(
        Qwen2Config, Qwen2ForCausalLM, older_keys=("rope_theta", "rope_scaling", "head_dim")
    ),
    "qwen3": Family(Qwen3Config, Qwen3ForCausalLM),
    "gemma": Family(GemmaConfig, GemmaForCausalLM),
    "gemma2": Family(Gemma2Config, Gemma2ForCausalLM),
    "gemma3_text": Family(
        Gemma3TextConfig,
        Gemma3ForCausalLM,
        older_keys=(
            "rope_theta",
            "rope_scaling",
            "rope_local_base_freq",
            "sliding_window_pattern",
        ),
    ),
    "mixtral": Family(
        MixtralConfig,
        MixtralForCausalLM,
        experts=Experts("block_sparse_moe", "w1", "w3", "w2", width="intermediate_size"),
    ),
    "deepseek_v3": Family(
        DeepseekV3Config,
        DeepseekV3ForCausalLM,
        experts=Experts(
            "mlp", "gate_proj", "up_proj", "down_proj", width="moe_intermediate_size"
        ),
    ),
}
"""The served families by `model_type`."""

ENCODER_TYPES = ("bert", "clip", "longformer", "vit")
"""The encoders of `encoder_families.py`, which are loaded in another way."""

VISUAL_TYPES = ("llava",)
"""The decoders of `visual_families.py`, which take images in their texts."""

SEQ2SEQ_TYPES = ("mt5", "t5")
"""The encoders with decoders of `seq2seq_families.py`."""

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}

# Static tables only: `dynamic` and `longrope` choose frequencies from the longest sequence
# in the batch, so that one session's length would change another session's answers.
ROPE_TYPES = ("default", "linear", "llama3", "yarn")

LAYER_TYPES = ("full_attention", "sliding_attention")

# What stock classes raise on a configuration that makes no sense.
FOREIGN = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    RuntimeError,
    StrictDataclassError,
    TypeError,
    ValueError,
)

_REFUSED_KEYS = ("auto_map", "quantization_config", "per_layer_config", "adapter_config")
_REFUSED_SWITCHES = ("add_cross_attention", "use_bidirectional_attention")
_IGNORED_KEYS = ("output_router_logits", "use_cache")  # they change no logits
_LAYER_COUNTS = ("num_hidden_layers", "n_layer", "num_layers", "num_decoder_layers")


def family_of(raw: Mapping[str, Any]) -> Family:
    """The family that a configuration file names.

    Raises:
        UnsupportedModelError: it is not served.
    """
    name = raw.get("model_type")
    if not isinstance(name, str) or name not in FAMILIES:
        raise UnsupportedModelError(
            f"model_type {name!r} is not served; served are "
            f"{', '.join([*FAMILIES, *VISUAL_TYPES, *SEQ2SEQ_TYPES])}, and the encoders "
            f"{', '.join(ENCODER_TYPES)}"
        )
    return FAMILIES[name]


def config_of(raw: Mapping[str, Any], family: Family, *, tensors: int) -> PreTrainedConfig:
    """The configuration, from the keys that the stock class itself declares.

    Args:
        raw: the configuration file.
        family: what it names.
        tensors: how many the checkpoint has; no model has more layers.

    Raises:
        UnsupportedModelError: an option that is not served.
        CheckpointError: values that make no sense.
    """
    if refused := [key for key in _REFUSED_KEYS if raw.get(key) is not None]:
        raise UnsupportedModelError(f"config key '{refused[0]}' is not served; remove it")
    dtype = raw.get("dtype", raw.get("torch_dtype", "float32"))
    if dtype not in DTYPES:
        raise UnsupportedModelError(f"dtype {dtype!r} is not served; served are {list(DTYPES)}")
    check_layer_count(raw, tensors=tensors)
    kind = family.config
    known = {*kind.__annotations__, *kind.attribute_map, *family.older_keys}
    known -= set(_IGNORED_KEYS)
    try:
        config = kind(**{key: value for key, value in raw.items() if key in known})
    except FOREIGN as error:
        raise CheckpointError(f"config.json is not valid: {one_line(error)}") from error
    config.dtype = DTYPES[dtype]
    config.use_cache = False
    _check_served(config)
    _check_numbers(config)
    return config


def check_layer_count(raw: Mapping[str, Any], *, tensors: int) -> None:
    """Refuses more layers than tensors, before a class makes a list of that length.

    Raises:
        CheckpointError: there are.
    """
    for key in _LAYER_COUNTS:
        count = raw.get(key, 0)
        if isinstance(count, int) and count > tensors:
            raise CheckpointError(f"{count} layers, but the files have {tensors} tensors")


def experts_implementation(config: PreTrainedConfig, experts: Experts | None) -> str:
    """Which of transformers' ways to run experts a model gets; both look at each row alone.

    `grouped_mm` runs all experts in one kernel and adds their outputs in float32, but takes
    16-bit weights in rows of 16 bytes only; `eager` loops over experts and takes any.
    """
    if experts is None or config.dtype not in (torch.float16, torch.bfloat16):
        return "eager"
    widths = (config.hidden_size, getattr(config, experts.width))
    return "eager" if any(width % 8 for width in widths) else "grouped_mm"


def one_line(error: BaseException) -> str:
    """What an error says, on one line and short enough for a message."""
    return (" ".join(str(error).split()) or type(error).__name__)[:200]


def _check_served(config: PreTrainedConfig) -> None:
    """Refuses options that would be ignored, or make a session depend on its batch."""
    for switch in _REFUSED_SWITCHES:
        if getattr(config, switch, None):
            raise UnsupportedModelError(
                f"{switch} is not served: rows look at the rows before them only"
            )
    for name in _rope_types(getattr(config, "rope_parameters", None) or {}):
        if name not in ROPE_TYPES:
            raise UnsupportedModelError(
                f"rope_type {name!r} is not served; served are {ROPE_TYPES}"
            )
    for name in getattr(config, "layer_types", None) or ():
        if name not in LAYER_TYPES:
            raise UnsupportedModelError(
                f"layer type {name!r} is not served; served are {LAYER_TYPES}"
            )


def _rope_types(rope: Mapping[str, Any]) -> Iterator[Any]:
    """The rotary types of a model, which may have a table of its own per type of layer."""
    yield rope.get("rope_type", "default")
    for table in rope.values():
        if isinstance(table, Mapping):
            yield table.get("rope_type", "default")


def _check_numbers(config: PreTrainedConfig) -> None:
    """Refuses windows and bounds that leave a row nothing to see, or no finite score."""
    window = getattr(config, "sliding_window", None)
    if window is None and "sliding_attention" in (getattr(config, "layer_types", None) or ()):
        raise CheckpointError("layer_types has sliding_attention, but no sliding_window is set")
    if window is not None and window < 1:
        raise CheckpointError(f"sliding_window is at least 1, got {window}")
    for key in ("attn_logit_softcapping", "final_logit_softcapping"):
        bound = getattr(config, key, None)
        if bound is not None and not 0 < bound < float("inf"):
            raise CheckpointError(f"{key} is positive and finite, got {bound}")
