"""The symmetry plan of Qwen2 and Qwen2.5 (`Qwen2ForCausalLM`).

LLaMA with biases of queries, keys and values. Rotary positions turn the keys' bias with the
keys, so it is keyed as they are; without positions it could be anything. Some layers may see
a window alone, which looks at positions and so changes nothing in the plan.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from triparty.developer.protect.choices import Choices
from triparty.developer.protect.families.decoder import (
    LAYER,
    decoder_plan,
    gated_layers,
    rotary_buffers,
)
from triparty.developer.protect.families.shared import lookup
from triparty.developer.protect.options import Options
from triparty.developer.protect.plans import VOCABULARY, Plan
from triparty.developer.protect.rules import Rows, linear, norm, table

MODEL_TYPE = "qwen2"
ARCHITECTURES = ("Qwen2ForCausalLM",)

# Options that the plan covers, with their defaults in `transformers`. The configuration class
# has no `head_dim`, but the model's reads one that is given.
KNOWN: Mapping[str, Any] = {
    "vocab_size": 151936,
    "hidden_size": 4096,
    "intermediate_size": 22016,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "head_dim": None,
    "hidden_act": "silu",
    "max_position_embeddings": 32768,
    "rms_norm_eps": 1e-6,
    "rope_parameters": None,
    "rope_scaling": None,
    "rope_theta": 10000.0,
    "use_sliding_window": False,
    "sliding_window": 4096,
    "max_window_layers": 28,
    "layer_types": None,
    "attention_dropout": 0.0,
    "initializer_range": 0.02,
    "use_cache": True,
    "tie_word_embeddings": False,
}


def rows(choices: Choices) -> Rows:
    """The table of Qwen2."""
    first, second = LAYER + "input_layernorm", LAYER + "post_attention_layernorm"
    attention, mlp = LAYER + "self_attn.", LAYER + "mlp."
    return table(
        lookup("model.embed_tokens.weight", "ids", "residual", "rows", choices),
        norm(first, "residual"),
        linear(attention + "q_proj", "residual", "query.{l}", after=first, bias=True),
        linear(attention + "k_proj", "residual", "key.{l}", after=first, bias=True),
        linear(attention + "v_proj", "residual", "value.{l}", after=first, bias=True),
        linear(attention + "o_proj", "mixed.{l}", "residual"),
        norm(second, "residual"),
        linear(mlp + "gate_proj", "residual", "gate.{l}", after=second),
        linear(mlp + "up_proj", "residual", "up.{l}", after=second),
        linear(mlp + "down_proj", "up.{l}", "residual"),
        norm("model.norm", "residual"),
        linear("lm_head", "residual", VOCABULARY, after="model.norm"),
        rotary_buffers(),
    )


def plan(options: Options, choices: Choices, architecture: str) -> Plan:
    """The plan of one Qwen2 configuration.

    Raises:
        UnsupportedModelError: an option that the plan does not cover.
    """
    options.activation("hidden_act")
    options.rope()
    options.layer_types(options.count("num_hidden_layers"))
    neurons = gated_layers(options, choices)
    return decoder_plan(MODEL_TYPE, rows(choices), neurons, options, choices)
