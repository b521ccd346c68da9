"""The symmetry plan of Qwen3 (`Qwen3ForCausalLM`).

LLaMA with norms of queries and keys, whose weights all heads of a layer share: what is left of
the complex numbers of a frequency pair is a sign a group, a quarter turn that all heads share
(the weights of the pair trade places), and a positive scale of the query's weights against
the key's.

These norms share their epsilon with those of the residual. An expansion of the residual makes
it smaller, so that what they normalise becomes smaller with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import sqrt
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

MODEL_TYPE = "qwen3"
ARCHITECTURES = ("Qwen3ForCausalLM",)

# Options that the plan covers, with their defaults in `transformers`.
KNOWN: Mapping[str, Any] = {
    "vocab_size": 151936,
    "hidden_size": 4096,
    "intermediate_size": 22016,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "head_dim": 128,
    "hidden_act": "silu",
    "max_position_embeddings": 32768,
    "rms_norm_eps": 1e-6,
    "rope_parameters": None,
    "rope_scaling": None,
    "rope_theta": 10000.0,
    "attention_bias": False,
    "use_sliding_window": False,
    "sliding_window": 4096,
    "max_window_layers": 28,
    "layer_types": None,
    "attention_dropout": 0.0,
    "initializer_range": 0.02,
    "use_cache": True,
    "tie_word_embeddings": False,
}


def rows(options: Options, choices: Choices) -> Rows:
    """The table of Qwen3."""
    bias = options.flag("attention_bias")
    width = options.count("hidden_size")
    small = sqrt(width / (choices.expand or width))
    first, second = LAYER + "input_layernorm", LAYER + "post_attention_layernorm"
    attention, mlp = LAYER + "self_attn.", LAYER + "mlp."
    return table(
        lookup("model.embed_tokens.weight", "ids", "residual", "rows", choices),
        norm(first, "residual"),
        linear(
            attention + "q_proj",
            "residual",
            "query.{l}",
            after=first,
            bias=bias,
            factor=small,
        ),
        norm(attention + "q_norm", "query norm.{l}", foldable=False),
        linear(
            attention + "k_proj",
            "residual",
            "key.{l}",
            after=first,
            bias=bias,
            factor=small,
        ),
        norm(attention + "k_norm", "key norm.{l}", foldable=False),
        linear(attention + "v_proj", "residual", "value.{l}", after=first, bias=bias),
        linear(attention + "o_proj", "mixed.{l}", "residual", bias=bias),
        norm(second, "residual"),
        linear(mlp + "gate_proj", "residual", "gate.{l}", after=second),
        linear(mlp + "up_proj", "residual", "up.{l}", after=second),
        linear(mlp + "down_proj", "up.{l}", "residual"),
        norm("model.norm", "residual"),
        linear("lm_head", "residual", VOCABULARY, after="model.norm"),
        rotary_buffers(),
    )


def plan(options: Options, choices: Choices, architecture: str) -> Plan:
    """The plan of one Qwen3 configuration.

    Raises:
        UnsupportedModelError: an option that the plan does not cover.
    """
    options.activation("hidden_act")
    options.rope()
    options.layer_types(options.count("num_hidden_layers"))
    return decoder_plan(
        MODEL_TYPE,
        rows(options, choices),
        gated_layers(options, choices),
        options,
        choices,
        biased=options.flag("attention_bias"),
        normalised=True,
    )
