"""The symmetry plan of GPT-2 (`GPT2LMHeadModel`).

Learned positions, LayerNorm, fused attention weights, `Conv1D` (in, out). Positions are added
on the device, keyed; the cloud hosts zeros and adds those. With the interface `tokens` the
cloud has to add them itself and hosts them keyed: whoever knows the original positions can
read the residual's key off them. The last norm's bias has no reader with a bias to go into and
stays with the norm.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from triparty.common.errors import UnsupportedModelError
from triparty.developer.protect.choices import Choices
from triparty.developer.protect.families.shared import (
    lookup,
    refuse_expansion,
    ties,
    vocabulary_spaces,
)
from triparty.developer.protect.heads import (
    Attention,
    Rotary,
    attention_offsets,
    attention_spaces,
)
from triparty.developer.protect.options import Options
from triparty.developer.protect.plans import VOCABULARY, Plan
from triparty.developer.protect.rules import Rows, dropped, linear, norm, table
from triparty.developer.protect.spaces import Norm, Offset, fixed, permuted, residual

MODEL_TYPE = "gpt2"
ARCHITECTURES = ("GPT2LMHeadModel",)

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


def rows(choices: Choices) -> Rows:
    """The table of GPT-2."""
    return table(
        lookup("transformer.wte.weight", "ids", "residual", "rows", choices),
        lookup("transformer.wpe.weight", "positions", "residual", "positions", choices),
        norm(LAYER + "ln_1", "residual", bias=True),
        conv1d(
            LAYER + "attn.c_attn",
            "residual",
            "query.{l}|key.{l}|value.{l}",
            after=LAYER + "ln_1",
        ),
        conv1d(LAYER + "attn.c_proj", "mixed.{l}", "residual"),
        norm(LAYER + "ln_2", "residual", bias=True),
        conv1d(LAYER + "mlp.c_fc", "residual", "neurons.{l}", after=LAYER + "ln_2"),
        conv1d(LAYER + "mlp.c_proj", "neurons.{l}", "residual"),
        norm("transformer.ln_f", "residual", bias=True, bias_kept=True),
        linear("lm_head", "residual", VOCABULARY, after="transformer.ln_f"),
        dropped(LAYER + "attn.bias"),  # the causal mask, in old checkpoints
        dropped(LAYER + "attn.masked_bias"),
    )


def conv1d(name: str, reads: str, writes: str, *, after: str | None = None) -> Rows:
    """A linear layer stored (in, out), with a bias."""
    return linear(name, reads, writes, after=after, bias=True, transposed=True)


def plan(options: Options, choices: Choices, architecture: str) -> Plan:
    """The plan of one GPT-2 configuration.

    Raises:
        UnsupportedModelError: an option that the plan does not cover.
    """
    options.activation("activation_function")
    refuse_expansion(choices, MODEL_TYPE)
    layers, width = options.count("n_layer"), options.count("n_embd")
    vocabulary, positions = options.count("vocab_size"), options.count("n_positions")
    heads = options.count("n_head")
    if width % heads:
        raise UnsupportedModelError(
            f"config.json: a width of {width} does not divide into {heads} heads"
        )
    scheme = choices.scheme
    attention = Attention(heads, heads, width // heads, Rotary.NONE, scheme)
    spaces = {
        "positions": fixed(positions),
        "residual": residual("residual", width, scheme=scheme, norm=Norm.LAYER),
        **vocabulary_spaces(vocabulary, choices),
    }
    neurons = options.count("n_inner", default=4 * width)
    offsets: dict[str, Offset] = {}
    for layer in range(layers):
        spaces[f"neurons.{layer}"] = permuted(f"layer {layer} neurons", neurons)
        spaces |= attention_spaces(str(layer), attention)
        offsets |= attention_offsets(str(layer), attention)
    return Plan(
        family=MODEL_TYPE,
        task="causal-lm",
        prefix="transformer.",
        counts={"l": range(layers)},
        width=width,
        vocabulary=vocabulary,
        max_positions=positions,
        spaces=spaces,
        rules=rows(choices),
        output_space=VOCABULARY,
        offsets=offsets,
        ties=ties(options, "lm_head.weight", "transformer.wte.weight"),
    )
