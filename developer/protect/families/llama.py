"""The symmetry plan of LLaMA (`LlamaForCausalLM`).

Grouped queries, rotary positions, RMSNorm, gated feed-forward.
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

MODEL_TYPE = "llama"
ARCHITECTURES = ("LlamaForCausalLM",)

# Options that the plan covers, with their defaults in `transformers`.
KNOWN: Mapping[str, Any] = {
    "vocab_size": 32000,
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": None,
    "head_dim": None,
    "hidden_act": "silu",
    "max_position_embeddings": 2048,
    "rms_norm_eps": 1e-6,
    "rope_parameters": None,
    "rope_scaling": None,
    "rope_theta": 10000.0,
    "attention_bias": False,
    "mlp_bias": False,
    "attention_dropout": 0.0,
    "initializer_range": 0.02,
    "use_cache": True,
    "tie_word_embeddings": False,
}


def rows(options: Options, choices: Choices) -> Rows:
    """The table of LLaMA."""
    biased, mlp_biased = options.flag("attention_bias"), options.flag("mlp_bias")
    first, second = LAYER + "input_layernorm", LAYER + "post_attention_layernorm"
    attention, mlp = LAYER + "self_attn.", LAYER + "mlp."
    return table(
        lookup("model.embed_tokens.weight", "ids", "residual", "rows", choices),
        norm(first, "residual"),
        linear(attention + "q_proj", "residual", "query.{l}", after=first, bias=biased),
        linear(attention + "k_proj", "residual", "key.{l}", after=first, bias=biased),
        linear(attention + "v_proj", "residual", "value.{l}", after=first, bias=biased),
        linear(attention + "o_proj", "mixed.{l}", "residual", bias=biased),
        norm(second, "residual"),
        linear(mlp + "gate_proj", "residual", "gate.{l}", after=second, bias=mlp_biased),
        linear(mlp + "up_proj", "residual", "up.{l}", after=second, bias=mlp_biased),
        linear(mlp + "down_proj", "up.{l}", "residual", bias=mlp_biased),
        norm("model.norm", "residual"),
        linear("lm_head", "residual", VOCABULARY, after="model.norm"),
        rotary_buffers(),
    )


def plan(options: Options, choices: Choices, architecture: str) -> Plan:
    """The plan of one LLaMA configuration.

    Raises:
        UnsupportedModelError: an option that the plan does not cover.
    """
    options.activation("hidden_act")
    options.rope()
    return decoder_plan(
        MODEL_TYPE,
        rows(options, choices),
        gated_layers(options, choices),
        options,
        choices,
        biased=options.flag("attention_bias"),
    )
