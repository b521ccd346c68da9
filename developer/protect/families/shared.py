"""What the tables of several families have in common."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from triparty.common.errors import UnsupportedModelError
from triparty.developer.protect.choices import Choices, Interface
from triparty.developer.protect.heads import Attention, Rotary
from triparty.developer.protect.options import Options
from triparty.developer.protect.plans import VOCABULARY
from triparty.developer.protect.rules import Rows, embedding
from triparty.developer.protect.spaces import Scheme, Space, fixed, head_scaled, permuted


def vocabulary_spaces(size: int, choices: Choices) -> Mapping[str, Space]:
    """Token ids: `ids` as the device has them, `vocabulary` as they leave it."""
    vocabulary = permuted(VOCABULARY, size)
    if choices.head_scales:
        vocabulary = head_scaled(vocabulary)
    return {"ids": fixed(size), VOCABULARY: vocabulary}


def lookup(
    pattern: str,
    index: str,
    space: str,
    device_name: str,
    choices: Choices,
    *,
    factor: float = 1.0,
    device_rows: range | None = None,
    hosted_factor: float | None = None,
) -> Rows:
    """A table that the device looks up, or, for the interface `tokens`, the cloud.

    Args:
        pattern: name of the tensor.
        index: space of its rows; the cloud has the rows of `ids` in the order of keyed ids.
        space: space of its columns.
        device_name: of the device's table.
        choices: of which the interface matters.
        factor: that the stock class applies to what it looks up by itself.
        hosted_factor: that the protected one applies; the same unless it says otherwise.
        device_rows: those that the device has, if not all.
    """
    if choices.interface is Interface.EMBEDDINGS:
        return embedding(
            pattern,
            index,
            space,
            device_name=device_name,
            factor=factor,
            device_rows=device_rows,
        )
    return embedding(
        pattern,
        VOCABULARY if index == "ids" else index,
        space,
        device_name=None,
        factor=factor,
        divisor=factor if hosted_factor is None else hosted_factor,
    )


def ties(options: Options, head: str, source: str) -> Mapping[str, str]:
    """The head that a tied configuration takes from the embedding."""
    return {head: source} if options.flag("tie_word_embeddings") else {}


def grouped_attention(
    options: Options, width: int, scheme: Scheme, *, normalised: bool = False
) -> Attention:
    """Attention with rotary positions whose queries share key-value heads."""
    heads = options.count("num_attention_heads")
    groups = options.count("num_key_value_heads", default=heads)
    head_width = options.count("head_dim", default=max(1, width // heads))
    if heads % groups or head_width % 2 or width % heads:
        raise UnsupportedModelError(
            f"config.json: {heads} heads of width {head_width} in {groups} groups on a width "
            f"of {width}: heads must divide into groups and pairs, and the width into heads"
        )
    return Attention(heads, groups, head_width, Rotary.HALVES, scheme, normalised=normalised)


def expanded(options: Options, choices: Choices, width: int, head_width: int) -> dict[str, Any]:
    """What `config.json` says otherwise of a model whose residual is expanded.

    A row keeps its length on more coordinates, so its mean square falls to d / D, and with
    it the epsilon that is added to it.
    """
    if choices.expand is None:
        return {}
    heads = options.count("num_attention_heads")
    if choices.expand < width or choices.expand % heads:
        raise UnsupportedModelError(
            f"expected an expansion to a multiple of {heads} heads from {width} on, "
            f"got {choices.expand}"
        )
    epsilon = options.number("rms_norm_eps") * width / choices.expand
    return {"hidden_size": choices.expand, "head_dim": head_width, "rms_norm_eps": epsilon}


def refuse_expansion(choices: Choices, family: str) -> None:
    """For families whose norms do not allow one."""
    if choices.expand is not None:
        raise UnsupportedModelError(
            f"the residual of family {family!r} cannot be expanded: only RMSNorm before "
            f"every reader allows it"
        )
