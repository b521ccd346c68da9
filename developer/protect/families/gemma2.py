"""The symmetry plan of Gemma 2 (`Gemma2ForCausalLM`).

Gemma with a norm behind attention and feed-forward as well as before them. What the norms
behind give is added to the residual, so their weights stay, and the residual's coordinates
trade places and change sign at most. The norms before, and the last one, are folded.

Scores and logits are capped by tanh. Keys leave the scores as they are. Logits may trade
places; scaled ones would be capped elsewhere, so there are no head scales. A window of
attention looks at positions alone.
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

MODEL_TYPE = "gemma2"
ARCHITECTURES = ("Gemma2ForCausalLM",)

# Options that the plan covers, with their defaults in `transformers`.
KNOWN: Mapping[str, Any] = {
    "vocab_size": 256000,
    "hidden_size": 2304,
    "intermediate_size": 9216,
    "num_hidden_layers": 26,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 256,
    "hidden_activation": "gelu_pytorch_tanh",
    "max_position_embeddings": 8192,
    "rms_norm_eps": 1e-6,
    "rope_parameters": None,
    "rope_scaling": None,
    "rope_theta": 10000.0,
    "attention_bias": False,
    "query_pre_attn_scalar": 256,
    "attn_logit_softcapping": 50.0,
    "final_logit_softcapping": 30.0,
    "sliding_window": 4096,
    "layer_types": None,
    "use_bidirectional_attention": None,
    "attention_dropout": 0.0,
    "initializer_range": 0.02,
    "use_cache": True,
    "tie_word_embeddings": True,
}


def rows(options: Options, choices: Choices) -> Rows:
    """The table of Gemma 2."""
    bias = options.flag("attention_bias")
    first, second = LAYER + "input_layernorm", LAYER + "pre_feedforward_layernorm"
    attention, mlp = LAYER + "self_attn.", LAYER + "mlp."
    return table(
        scaled_lookup(options, choices),
        norm(first, "residual", offset=1.0),
        linear(attention + "q_proj", "residual", "query.{l}", after=first, bias=bias),
        linear(attention + "k_proj", "residual", "key.{l}", after=first, bias=bias),
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
    """The plan of one Gemma 2 configuration.

    Raises:
        UnsupportedModelError: an option that the plan does not cover.
    """
    options.activation("hidden_activation")
    options.causal()
    options.rope()
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
        norm_is_residual=True,
    )
