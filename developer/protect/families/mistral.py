"""The symmetry plan of Mistral (`MistralForCausalLM`).

LLaMA without biases; each token may see a window behind itself alone, which looks at positions
and so changes nothing in the plan.
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

MODEL_TYPE = "mistral"
ARCHITECTURES = ("MistralForCausalLM",)

# Options that the plan covers, with their defaults in `transformers`.
KNOWN: Mapping[str, Any] = {
    "vocab_size": 32000,
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": None,
    "hidden_act": "silu",
    "max_position_embeddings": 131072,
    "rms_norm_eps": 1e-6,
    "rope_parameters": None,
    "rope_scaling": None,
    "rope_theta": 10000.0,
    "sliding_window": 4096,
    "attention_dropout": 0.0,
    "initializer_range": 0.02,
    "use_cache": True,
    "tie_word_embeddings": False,
}


def rows(choices: Choices) -> Rows:
    """The table of Mistral."""
    first, second = LAYER + "input_layernorm", LAYER + "post_attention_layernorm"
    attention, mlp = LAYER + "self_attn.", LAYER + "mlp."
    return table(
        lookup("model.embed_tokens.weight", "ids", "residual", "rows", choices),
        norm(first, "residual"),
        linear(attention + "q_proj", "residual", "query.{l}", after=first),
        linear(attention + "k_proj", "residual", "key.{l}", after=first),
        linear(attention + "v_proj", "residual", "value.{l}", after=first),
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
    """The plan of one Mistral configuration.

    Raises:
        UnsupportedModelError: an option that the plan does not cover.
    """
    options.activation("hidden_act")
    options.rope()
    neurons = gated_layers(options, choices)
    return decoder_plan(MODEL_TYPE, rows(choices), neurons, options, choices)
