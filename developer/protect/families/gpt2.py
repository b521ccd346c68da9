"""The symmetry plan of GPT-2 (`GPT2LMHeadModel`).

Learned positions, LayerNorm, fused attention weights, `Conv1D` (in, out). Positions are added
on the device, keyed; the cloud hosts zeros and adds those. LayerNorm weights and biases stay
where they are and are permuted along: the cloud sees their values in keyed order. The bias of
the keys could be anything (it shifts all scores of a query alike); it is permuted.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from triparty.common.errors import UnsupportedModelError
from triparty.developer.protect.options import Options
from triparty.developer.protect.plans import Plan, dropped, hosted, on_device
from triparty.developer.protect.spaces import (
    Attention,
    Space,
    attention_spaces,
    fixed,
    permuted,
)

MODEL_TYPE = "gpt2"
ARCHITECTURE = "GPT2LMHeadModel"

# Options that the plan covers, with their defaults in `transformers`.
KNOWN: Mapping[str, Any] = {
    "vocab_size": 50257,
    "n_positions": 1024,
    "n_embd": 768,
    "n_layer": 12,
    "n_head": 12,
    "n_inner": None,
    "activation_function": "gelu_new",
    "layer_norm_epsilon": 1e-5,
    "scale_attn_weights": True,
    "scale_attn_by_inverse_layer_idx": False,
    "reorder_and_upcast_attn": False,
    "resid_pdrop": 0.1,
    "embd_pdrop": 0.1,
    "attn_pdrop": 0.1,
    "initializer_range": 0.02,
    "use_cache": True,
    "tie_word_embeddings": True,
}

LAYER = "transformer.h.{l}."
TABLE = (
    on_device("transformer.wte.weight", "ids", "residual"),
    on_device("transformer.wpe.weight", "positions", "residual"),
    hosted(LAYER + "ln_1.weight", "residual"),
    hosted(LAYER + "ln_1.bias", "residual"),
    hosted(LAYER + "attn.c_attn.weight", "residual", "query.{l}|key.{l}|value.{l}"),
    hosted(LAYER + "attn.c_attn.bias", "query.{l}|key.{l}|value.{l}"),
    hosted(LAYER + "attn.c_proj.weight", "mixed.{l}", "residual"),
    hosted(LAYER + "attn.c_proj.bias", "residual"),
    hosted(LAYER + "ln_2.weight", "residual"),
    hosted(LAYER + "ln_2.bias", "residual"),
    hosted(LAYER + "mlp.c_fc.weight", "residual", "neurons.{l}"),
    hosted(LAYER + "mlp.c_fc.bias", "neurons.{l}"),
    hosted(LAYER + "mlp.c_proj.weight", "neurons.{l}", "residual"),
    hosted(LAYER + "mlp.c_proj.bias", "residual"),
    hosted("transformer.ln_f.weight", "residual"),
    hosted("transformer.ln_f.bias", "residual"),
    hosted("lm_head.weight", "vocabulary", "residual"),
    dropped(LAYER + "attn.bias"),  # the causal mask, in old checkpoints
    dropped(LAYER + "attn.masked_bias"),
)


def plan(options: Options) -> Plan:
    """The plan of one GPT-2 configuration.

    Raises:
        UnsupportedModelError: an option that the plan does not cover.
    """
    options.activation("activation_function")
    layers, width = options.count("n_layer"), options.count("n_embd")
    vocabulary, positions = options.count("vocab_size"), options.count("n_positions")
    heads = options.count("n_head")
    if width % heads:
        raise UnsupportedModelError(
            f"config.json: a width of {width} does not divide into {heads} heads"
        )
    attention = Attention(heads, heads, width // heads, rotary=False)
    spaces: dict[str, Space] = {
        "ids": fixed(vocabulary),
        "positions": fixed(positions),
        "residual": permuted("residual", width),
        "vocabulary": permuted("vocabulary", vocabulary),
    }
    neurons = options.count("n_inner", default=4 * width)
    for layer in range(layers):
        spaces[f"neurons.{layer}"] = permuted(f"layer {layer} neurons", neurons)
        spaces |= attention_spaces(layer, attention)
    return Plan(
        family=MODEL_TYPE,
        prefix="transformer.",
        layers=layers,
        width=width,
        vocabulary=vocabulary,
        max_positions=positions,
        spaces=spaces,
        rules=TABLE,
        embedding="transformer.wte.weight",
        positions="transformer.wpe.weight",
        head="lm_head.weight",
        tied=options.flag("tie_word_embeddings"),
    )
