"""The symmetry plan of LLaMA (`LlamaForCausalLM`).

Grouped queries, rotary positions, RMSNorm, gated feed-forward. RMSNorm weights stay where
they are and are permuted along, not folded into their readers: the cloud sees their values in
keyed order.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from triparty.common.errors import UnsupportedModelError
from triparty.developer.protect.options import Options
from triparty.developer.protect.plans import Plan, Rule, dropped, hosted, on_device
from triparty.developer.protect.spaces import (
    Attention,
    Space,
    attention_spaces,
    fixed,
    permuted,
)

MODEL_TYPE = "llama"
ARCHITECTURE = "LlamaForCausalLM"

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

LAYER = "model.layers.{l}."
TABLE = (
    on_device("model.embed_tokens.weight", "ids", "residual"),
    hosted(LAYER + "input_layernorm.weight", "residual"),
    hosted(LAYER + "self_attn.q_proj.weight", "query.{l}", "residual"),
    hosted(LAYER + "self_attn.k_proj.weight", "key.{l}", "residual"),
    hosted(LAYER + "self_attn.v_proj.weight", "value.{l}", "residual"),
    hosted(LAYER + "self_attn.o_proj.weight", "residual", "mixed.{l}"),
    hosted(LAYER + "post_attention_layernorm.weight", "residual"),
    hosted(LAYER + "mlp.gate_proj.weight", "neurons.{l}", "residual"),
    hosted(LAYER + "mlp.up_proj.weight", "neurons.{l}", "residual"),
    hosted(LAYER + "mlp.down_proj.weight", "residual", "neurons.{l}"),
    hosted("model.norm.weight", "residual"),
    hosted("lm_head.weight", "vocabulary", "residual"),
    dropped(LAYER + "self_attn.rotary_emb.inv_freq"),
    dropped("model.rotary_emb.inv_freq"),
)
ATTENTION_BIAS = (
    hosted(LAYER + "self_attn.q_proj.bias", "query.{l}"),
    hosted(LAYER + "self_attn.k_proj.bias", "key.{l}"),
    hosted(LAYER + "self_attn.v_proj.bias", "value.{l}"),
    hosted(LAYER + "self_attn.o_proj.bias", "residual"),
)
MLP_BIAS = (
    hosted(LAYER + "mlp.gate_proj.bias", "neurons.{l}"),
    hosted(LAYER + "mlp.up_proj.bias", "neurons.{l}"),
    hosted(LAYER + "mlp.down_proj.bias", "residual"),
)


def plan(options: Options) -> Plan:
    """The plan of one LLaMA configuration.

    Raises:
        UnsupportedModelError: an option that the plan does not cover.
    """
    options.activation("hidden_act")
    options.rope()
    layers, width = options.count("num_hidden_layers"), options.count("hidden_size")
    vocabulary = options.count("vocab_size")
    return Plan(
        family=MODEL_TYPE,
        prefix="model.",
        layers=layers,
        width=width,
        vocabulary=vocabulary,
        max_positions=options.count("max_position_embeddings"),
        spaces=_spaces(layers, width, vocabulary, _attention(options, width), options),
        rules=_rules(options),
        embedding="model.embed_tokens.weight",
        positions=None,
        head="lm_head.weight",
        tied=options.flag("tie_word_embeddings"),
    )


def _rules(options: Options) -> tuple[Rule, ...]:
    return (
        TABLE
        + (ATTENTION_BIAS if options.flag("attention_bias") else ())
        + (MLP_BIAS if options.flag("mlp_bias") else ())
    )


def _attention(options: Options, width: int) -> Attention:
    heads = options.count("num_attention_heads")
    groups = options.count("num_key_value_heads", default=heads)
    head_width = options.count("head_dim", default=max(1, width // heads))
    if heads % groups or head_width % 2 or width % heads:
        raise UnsupportedModelError(
            f"config.json: {heads} heads of width {head_width} in {groups} groups on a width "
            f"of {width}: heads must divide into groups and pairs, and the width into heads"
        )
    return Attention(heads, groups, head_width, rotary=True)


def _spaces(
    layers: int, width: int, vocabulary: int, attention: Attention, options: Options
) -> dict[str, Space]:
    neurons = options.count("intermediate_size")
    spaces = {
        "ids": fixed(vocabulary),
        "residual": permuted("residual", width),
        "vocabulary": permuted("vocabulary", vocabulary),
    }
    for layer in range(layers):
        spaces[f"neurons.{layer}"] = permuted(f"layer {layer} neurons", neurons)
        spaces |= attention_spaces(layer, attention)
    return spaces
