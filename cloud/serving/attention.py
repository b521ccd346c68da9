"""Attention over a packed batch: the rows of all sessions as one sequence, no padding.

Everything in a Transformer but attention treats rows independently, so the rows of all
sessions of a batch go through the stock model as one sequence (1, N, D), each with its own
position. Only attention must know whose row is whose. transformers lets a model take a
registered attention function and hands it the model call's keyword arguments; ours gets the
batch's description that way, appends each session's new keys and values to that session's
own cache, and attends session by session.

Law: the outputs are those of each session run alone (up to the order of sums).

Shapes: `N` rows of the batch, `T` rows of a span, `L` rows of a session's cache after it,
`H` query heads, `G` query heads per key/value head, `d` head width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

from triparty.cloud.serving.cache import GrowingLayer, SessionCache

NAME = "triparty_packed"


@dataclass(frozen=True, eq=False)
class Span:
    """The rows of one session in a packed batch.

    Attributes:
        rows: how many, T.
        cache: the session's cache, cut to where the rows begin.
        mask: (T, L) true where a row may look, or None when the rows are one, or the first.
    """

    rows: int
    cache: SessionCache
    mask: torch.Tensor | None

    @classmethod
    def of(cls, *, position: int, rows: int, cache: SessionCache, device: torch.device) -> Span:
        """The span of `rows` rows that begin at `position`."""
        cache.crop_to(position)
        if rows == 1 or position == 0:
            return cls(rows, cache, None)
        mask = torch.ones(rows, position + rows, dtype=torch.bool, device=device)
        return cls(rows, cache, mask.tril(diagonal=position))


@dataclass(frozen=True, eq=False)
class PackedBatch:
    """Whose rows are where in a packed sequence: the spans in order."""

    spans: Sequence[Span]

    @property
    def lengths(self) -> list[int]:
        """Rows of each span."""
        return [span.rows for span in self.spans]


def packed_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    packed: PackedBatch,
    scaling: float | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """The attention function that transformers calls in every layer.

    Args:
        module: the layer's attention module; its `layer_idx` names the cache's layer.
        query: (1, H, N, d).
        key: new keys, (1, H / G, N, d), positions already applied.
        value: new values, (1, H / G, N, d).
        attention_mask: unused; spans bring their own.
        packed: whose rows are where.
        scaling: factor of the scores; None means `d ** -0.5`.

    Returns:
        (1, N, H, d), and no attention weights.
    """
    index = module.layer_idx
    if not isinstance(index, int):
        raise TypeError(f"an attention module has an integer layer_idx, got {index!r}")
    lengths = packed.lengths
    parts = zip(
        packed.spans,
        torch.split(query, lengths, dim=2),
        torch.split(key, lengths, dim=2),
        torch.split(value, lengths, dim=2),
        strict=True,
    )
    outputs = [
        _attend(q, span.cache.layers[index], k, v, mask=span.mask, scaling=scaling)
        for span, q, k, v in parts
    ]
    output = outputs[0] if len(outputs) == 1 else torch.cat(outputs, dim=2)
    return output.transpose(1, 2).contiguous(), None


def _attend(
    query: torch.Tensor,
    layer: GrowingLayer,
    key: torch.Tensor,
    value: torch.Tensor,
    *,
    mask: torch.Tensor | None,
    scaling: float | None,
) -> torch.Tensor:
    """The attention (1, H, T, d) of one session's new rows over its cache."""
    keys, values = layer.update(key, value)
    _, heads, rows, width = query.shape
    groups = heads // keys.shape[1]
    if rows == 1 and groups > 1:  # one row: the heads of a group can stand where rows stand
        packed = query.view(1, keys.shape[1], groups, width)
        output = scaled_dot_product_attention(packed, keys, values, scale=scaling)
        return output.reshape(1, heads, 1, width)
    if groups > 1:
        keys, values = _repeat(keys, groups), _repeat(values, groups)
    return scaled_dot_product_attention(
        query, keys, values, attn_mask=mask, is_causal=mask is None and rows > 1, scale=scaling
    )


def _repeat(states: torch.Tensor, groups: int) -> torch.Tensor:
    batch, heads, rows, width = states.shape
    expanded = states[:, :, None].expand(batch, heads, groups, rows, width)
    return expanded.reshape(batch, heads * groups, rows, width)


# No mask function is registered under the name: transformers then makes no mask at all.
AttentionInterface.register(NAME, packed_attention)
