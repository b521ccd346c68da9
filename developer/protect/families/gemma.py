"""The symmetry plan of Gemma (`GemmaForCausalLM`).

LLaMA with three differences. Norms store their weights less one. Embedding and head are tied;
protected, they are two. What is looked up is multiplied by the root of the width:
`transformers` from version 5 on does so where it looks up, so a device's rows carry the factor.
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

MODEL_TYPE = "gemma"
ARCHITECTURES = ("GemmaForCausalLM",)

# Options that the plan covers, with their defaults in `transformers`.
KNOWN: Mapping[str, Any] = {
    "vocab_size": 256000,
    "hidden_size": 3072,
    "intermediate_size": 24576,
    "num_hidden_layers": 28,
    "num_attention_heads": 16,
    "num_key_value_heads": 16,
    "head_dim": 256,
    "hidden_act": "gelu_pytorch_tanh",
    "max_position_embeddings": 8192,
    "rms_norm_eps": 1e-6,
    "rope_parameters": None,
    "rope_scaling": None,
    "rope_theta": 10000.0,
    "attention_bias": False,
    "use_bidirectional_attention": None,
    "attention_dropout": 0.0,
    "initializer_range": 0.02,
    "use_cache": True,
    "tie_word_embeddings": True,
}


def scaled_lookup(options: Options, choices: Choices) -> Rows:
    """The table of tokens, multiplied by the root of the width where it is looked up."""
    width = options.count("hidden_size")
    return lookup(
        "model.embed_tokens.weight",
        "ids",
        "residual",
        "rows",
        choices,
        factor=sqrt(width),
        hosted_factor=sqrt(choices.expand or width),
    )


def rows(options: Options, choices: Choices) -> Rows:
    """The table of Gemma."""
    bias = options.flag("attention_bias")
    first, second = LAYER + "input_layernorm", LAYER + "post_attention_layernorm"
    attention, mlp = LAYER + "self_attn.", LAYER + "mlp."
    return table(
        scaled_lookup(options, choices),
        norm(first, "residual", offset=1.0),
        linear(attention + "q_proj", "residual", "query.{l}", after=first, bias=bias),
        linear(attention + "k_proj", "residual", "key.{l}", after=first, bias=bias),
        linear(attention + "v_proj", "residual", "value.{l}", after=first, bias=bias),
        linear(attention + "o_proj", "mixed.{l}", "residual", bias=bias),
        norm(second, "residual", offset=1.0),
        linear(mlp + "gate_proj", "residual", "gate.{l}", after=second),
        linear(mlp + "up_proj", "residual", "up.{l}", after=second),
        linear(mlp + "down_proj", "up.{l}", "residual"),
        norm("model.norm", "residual", offset=1.0),
        linear("lm_head", "residual", VOCABULARY, after="model.norm"),
        rotary_buffers(),
    )


def plan(options: Options, choices: Choices, architecture: str) -> Plan:
    """The plan of one Gemma configuration.

    Raises:
        UnsupportedModelError: an option that the plan does not cover.
    """
    options.activation("hidden_act")
    options.causal()
    options.rope()
    return decoder_plan(
        MODEL_TYPE,
        rows(options, choices),
        gated_layers(options, choices),
        options,
        choices,
        biased=options.flag("attention_bias"),
    )
