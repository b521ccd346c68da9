"""The symmetry plan of Gemma 3 for text (`Gemma3ForCausalLM`).

Gemma 2 with norms of queries and keys, as in Qwen3, and without caps unless they are asked
for. Rotary positions have frequencies for each type of layer; keys act on frequency pairs
whatever their frequency is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from triparty.developer.protect.choices import Choices
from triparty.developer.protect.families.decoder import (
    LAYER,
    decoder_plan,
    gated_layers,
    refuse_scales_of_capped_logits,
    rotary_buffers,
)
from triparty.developer.protect.families.gemma import scaled_lookup
from triparty.developer.protect.families.shared import refuse_expansion
from triparty.developer.protect.options import Options
from triparty.developer.protect.plans import VOCABULARY, Plan
from triparty.developer.protect.rules import Rows, linear, norm, table

MODEL_TYPE = "gemma3_text"
ARCHITECTURES = ("Gemma3ForCausalLM",)

# Options that the plan covers, with their defaults in `transformers`; older checkpoints give
# frequencies as `rope_theta`, `rope_local_base_freq` and `rope_scaling`, and the types of
# their layers as `sliding_window_pattern`.
KNOWN: Mapping[str, Any] = {
    "vocab_size": 262208,
    "hidden_size": 2304,
    "intermediate_size": 9216,
    "num_hidden_layers": 26,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 256,
    "hidden_activation": "gelu_pytorch_tanh",
    "max_position_embeddings": 131072,
    "rms_norm_eps": 1e-6,
    "rope_parameters": None,
    "rope_scaling": None,
    "rope_theta": 1000000.0,
    "rope_local_base_freq": 10000.0,
    "attention_bias": False,
    "query_pre_attn_scalar": 256,
    "attn_logit_softcapping": None,
    "final_logit_softcapping": None,
    "sliding_window": 4096,
    "sliding_window_pattern": 6,
    "layer_types": None,
    "use_bidirectional_attention": False,
    "attention_dropout": 0.0,
    "initializer_range": 0.02,
    "use_cache": True,
    "tie_word_embeddings": True,
}


def rows(options: Options, choices: Choices) -> Rows:
    """The table of Gemma 3."""
    bias = options.flag("attention_bias")
    first, second = LAYER + "input_layernorm", LAYER + "pre_feedforward_layernorm"
    attention, mlp = LAYER + "self_attn.", LAYER + "mlp."
    return table(
        scaled_lookup(options, choices),
        norm(first, "residual", offset=1.0),
        linear(attention + "q_proj", "residual", "query.{l}", after=first, bias=bias),
        norm(attention + "q_norm", "query norm.{l}", offset=1.0, foldable=False),
        linear(attention + "k_proj", "residual", "key.{l}", after=first, bias=bias),
        norm(attention + "k_norm", "key norm.{l}", offset=1.0, foldable=False),
        linear(attention + "v_proj", "residual", "value.{l}", after=first, bias=bias),
        linear(attention + "o_proj", "mixed.{l}", "residual", bias=bias),
        norm(LAYER + "post_attention_layernorm", "residual", offset=1.0, foldable=False),
        norm(second, "residual", offset=1.0),
        linear(mlp + "gate_proj", "residual", "gate.{l}", after=second),
        linear(mlp + "up_proj", "residual", "up.{l}", after=second),
        linear(mlp + "down_proj", "up.{l}", "residual"),
        norm(LAYER + "post_feedforward_layernorm", "residual", offset=1.0, foldable=False),
        norm("model.norm", "residual", offset=1.0),
        linear("lm_head", "residual", VOCABULARY, after="model.norm"),
        rotary_buffers(),
    )


def plan(options: Options, choices: Choices, architecture: str) -> Plan:
    """The plan of one Gemma 3 configuration.

    Raises:
        UnsupportedModelError: an option that the plan does not cover.
    """
    options.activation("hidden_activation")
    options.causal()
    options.rope(by_layer_type=True)
    options.layer_types(options.count("num_hidden_layers"))
    refuse_expansion(choices, MODEL_TYPE)
    refuse_scales_of_capped_logits(options, choices)
    return decoder_plan(
        MODEL_TYPE,
        rows(options, choices),
        gated_layers(options, choices),
        options,
        choices,
        biased=options.flag("attention_bias"),
        normalised=True,
        norm_is_residual=True,
    )
