"""The symmetry plan of LLaMA (`LlamaForCausalLM`).

Grouped queries, rotary positions, RMSNorm, gated feed-forward.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from triparty.developer.protect.choices import Choices
from triparty.developer.protect.families.shared import (
    expanded,
    grouped_attention,
    lookup,
    ties,
    vocabulary_spaces,
)
from triparty.developer.protect.heads import attention_offsets, attention_spaces
from triparty.developer.protect.options import Options
from triparty.developer.protect.plans import VOCABULARY, Plan
from triparty.developer.protect.rules import Rows, dropped, linear, norm, table
from triparty.developer.protect.spaces import Norm, Offset, gated_neurons, residual

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

LAYER = "model.layers.{l}."


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
        dropped(LAYER + "self_attn.rotary_emb.inv_freq"),
        dropped("model.rotary_emb.inv_freq"),
    )


def plan(options: Options, choices: Choices, architecture: str) -> Plan:
    """The plan of one LLaMA configuration.

    Raises:
        UnsupportedModelError: an option that the plan does not cover.
    """
    options.activation("hidden_act")
    options.rope()
    layers, width = options.count("num_hidden_layers"), options.count("hidden_size")
    vocabulary = options.count("vocab_size")
    scheme = choices.scheme
    spaces = {
        "residual": residual(
            "residual", width, scheme=scheme, norm=Norm.RMS, new_size=choices.expand
        ),
        **vocabulary_spaces(vocabulary, choices),
    }
    attention = grouped_attention(options, width, scheme)
    neurons = options.count("intermediate_size")
    offsets: dict[str, Offset] = {}
    for layer in range(layers):
        gate, up = gated_neurons(f"layer {layer} neurons", neurons, scheme=scheme)
        spaces |= {f"gate.{layer}": gate, f"up.{layer}": up}
        spaces |= attention_spaces(str(layer), attention)
        if options.flag("attention_bias"):
            offsets |= attention_offsets(str(layer), attention)
    return Plan(
        family=MODEL_TYPE,
        task="causal-lm",
        prefix="model.",
        counts={"l": range(layers)},
        width=width,
        vocabulary=vocabulary,
        max_positions=options.count("max_position_embeddings"),
        spaces=spaces,
        rules=rows(options, choices),
        output_space=VOCABULARY,
        offsets=offsets,
        ties=ties(options, "lm_head.weight", "model.embed_tokens.weight"),
        config=expanded(options, choices, width, attention.head_width),
    )
