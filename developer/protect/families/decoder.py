"""What decoders with grouped queries, rotary positions and a gated feed-forward share.

Each family has its own table; the spaces that the tables name are drawn here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from triparty.common.errors import UnsupportedModelError
from triparty.developer.protect.choices import Choices
from triparty.developer.protect.families.shared import (
    expanded,
    grouped_attention,
    ties,
    vocabulary_spaces,
)
from triparty.developer.protect.heads import attention_offsets, attention_spaces
from triparty.developer.protect.options import Options
from triparty.developer.protect.plans import VOCABULARY, Plan
from triparty.developer.protect.rules import Rows, dropped, table
from triparty.developer.protect.spaces import Norm, Offset, Space, gated_neurons, residual

LAYER = "model.layers.{l}."


def rotary_buffers() -> Rows:
    """What old checkpoints carry of rotary positions."""
    return table(
        dropped(LAYER + "self_attn.rotary_emb.inv_freq"), dropped("model.rotary_emb.inv_freq")
    )


def gated_layers(options: Options, choices: Choices) -> Mapping[str, Space]:
    """The neurons of one gated feed-forward a layer: `gate.{l}` and `up.{l}`."""
    neurons = options.count("intermediate_size")
    spaces: dict[str, Space] = {}
    for layer in range(options.count("num_hidden_layers")):
        gate, up = gated_neurons(f"layer {layer} neurons", neurons, scheme=choices.scheme)
        spaces |= {f"gate.{layer}": gate, f"up.{layer}": up}
    return spaces


def refuse_scales_of_capped_logits(options: Options, choices: Choices) -> None:
    """A cap is no scale: what was scaled before it cannot be undone behind it.

    Raises:
        UnsupportedModelError: head scales, and a configuration that caps its logits.
    """
    if choices.head_scales and options.given("final_logit_softcapping"):
        raise UnsupportedModelError(
            "config.json: 'final_logit_softcapping' caps the logits on the cloud, so that a "
            "device could not undo their scales; protect this model without head scales"
        )


def decoder_plan(
    family: str,
    rows: Rows,
    feed_forward: Mapping[str, Space],
    options: Options,
    choices: Choices,
    *,
    counts: Mapping[str, Sequence[int]] | None = None,
    biased: bool = False,
    normalised: bool = False,
    norm_is_residual: bool = False,
) -> Plan:
    """The plan of one configuration of a decoder.

    Args:
        family: its `model_type`.
        rows: its table.
        feed_forward: the spaces of its feed-forward layers.
        options: its configuration, checked for what the family alone has.
        choices: what the developer chose.
        counts: what the letters of the table count beside layers, `{l}`.
        biased: whether all four projections of attention have a bias.
        normalised: whether queries and keys are normalised with weights that heads share.
        norm_is_residual: whether the output of some norm is added to the residual.

    Raises:
        UnsupportedModelError: an option that no such plan covers.
    """
    layers, width = options.count("num_hidden_layers"), options.count("hidden_size")
    vocabulary, scheme = options.count("vocab_size"), choices.scheme
    attention = grouped_attention(options, width, scheme, normalised=normalised)
    spaces = {
        "residual": residual(
            "residual",
            width,
            scheme=scheme,
            norm=Norm.RMS,
            norm_is_residual=norm_is_residual,
            new_size=choices.expand,
        ),
        **vocabulary_spaces(vocabulary, choices),
        **feed_forward,
    }
    offsets: dict[str, Offset] = {}
    for layer in range(layers):
        spaces |= attention_spaces(str(layer), attention)
        if biased:
            offsets |= attention_offsets(str(layer), attention)
    return Plan(
        family=family,
        task="causal-lm",
        prefix="model.",
        counts={"l": range(layers), **(counts or {})},
        width=width,
        vocabulary=vocabulary,
        max_positions=options.count("max_position_embeddings"),
        spaces=spaces,
        rules=rows,
        output_space=VOCABULARY,
        offsets=offsets,
        ties=ties(options, "lm_head.weight", "model.embed_tokens.weight"),
        config=expanded(options, choices, width, attention.head_width),
    )
