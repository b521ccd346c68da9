"""Attention over a packed batch: the rows of all sessions as one sequence, no padding.

Everything in a Transformer but attention treats rows independently, so the rows of all
sessions of a batch go through the stock model as one sequence (1, N, D), each with its own
position. Only attention must know whose row is whose. transformers lets a model take a
registered attention function and hands it the model call's keyword arguments; ours gets the
batch's description that way, appends each session's new keys and values to that session's
own cache, and attends session by session.

Law: the outputs are those of each session run alone (up to the order of sums).

A layer may look back no further than a *window* of rows, the row itself included. Caches
keep all rows all the same, since a rollback uncovers older ones; a layer with a window reads
the end of its cache.

Shapes: `N` rows of the batch, `T` rows of a span, `L` rows of a session's cache that a layer
reads, `H` query heads, `G` query heads per key/value head, `d` width of queries and keys,
`e` width of values.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

from triparty.cloud.serving.cache import SessionCache

NAME = "triparty_packed"


@dataclass(frozen=True, eq=False)
class Reach:
    """Which rows of its session's cache a span looks at.

    Attributes:
        first: the first that any of its rows sees; the last is the span's own last.
        mask: (T, L) true where a row may look; None when there is one row, which sees all L,
            or when `first` is 0 and the span is the whole cache: then each sees those before.
    """

    first: int
    mask: torch.Tensor | None

    @classmethod
    def of(cls, *, position: int, rows: int, window: int | None, device: torch.device) -> Reach:
        """The reach of `rows` rows that begin at `position`.

        Row `i` sees row `j` when `i - window < j <= i`; without a window, when `j <= i`.
        """
        end = position + rows
        first = 0 if window is None else max(0, position + 1 - window)
        if rows == 1 or (position == 0 and (window is None or rows <= window)):
            return cls(first, None)
        row = torch.arange(position, end, device=device)[:, None]
        seen = torch.arange(first, end, device=device)
        mask = seen <= row
        return cls(first, mask if window is None else mask & (seen > row - window))


@dataclass(frozen=True, eq=False)
class Span:
    """The rows of one session in a packed batch.

    Attributes:
        position: rows of the session before these.
        rows: how many, T.
        cache: the session's cache, cut to where the rows begin.
    """

    position: int
    rows: int
    cache: SessionCache
    _reaches: dict[tuple[int | None, torch.device], Reach] = field(
        default_factory=dict, init=False, repr=False
    )

    @classmethod
    def of(cls, *, position: int, rows: int, cache: SessionCache) -> Span:
        """The span of `rows` rows that begin at `position`."""
        cache.crop_to(position)
        return cls(position, rows, cache)

    def reach(self, window: int | None, device: torch.device) -> Reach:
        """What the rows see in layers there with that window; made once for them all."""
        key = window, device
        if key not in self._reaches:
            self._reaches[key] = Reach.of(
                position=self.position, rows=self.rows, window=window, device=device
            )
        return self._reaches[key]


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
    sliding_window: int | None = None,
    softcap: float | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """The attention function that transformers calls in every layer.

    Args:
        module: the layer's attention module; its `layer_idx` names the cache's layer.
        query: (1, H, N, d).
        key: new keys, (1, H / G, N, d), positions already applied.
        value: new values, (1, H / G, N, e).
        attention_mask: unused; spans bring their own.
        packed: whose rows are where.
        scaling: factor of the scores; None means `d ** -0.5`.
        sliding_window: how many rows a row of this layer sees, itself included; None means
            all before it.
        softcap: bound `c` of the scores, `c tanh(score / c)`; None means no bound.

    Returns:
        (1, N, H, e), and no attention weights.
    """
    index = module.layer_idx
    if not isinstance(index, int):
        raise TypeError(f"an attention module has an integer layer_idx, got {index!r}")
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    attend = _attend if softcap is None else partial(_attend_capped, softcap=softcap)
    outputs = []
    for span, queries, new_keys, new_values in _parts(packed, query, key, value):
        reach = span.reach(sliding_window, query.device)
        keys, values = span.cache.layers[index].update(new_keys, new_values)
        if reach.first:
            keys, values = keys[:, :, reach.first :], values[:, :, reach.first :]
        outputs.append(attend(queries, keys, values, mask=reach.mask, scale=scale))
    output = outputs[0] if len(outputs) == 1 else torch.cat(outputs, dim=2)
    return output.transpose(1, 2).contiguous(), None


def _parts(
    packed: PackedBatch, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor
) -> Iterable[tuple[Span, torch.Tensor, torch.Tensor, torch.Tensor]]:
    """Each span with its rows of the queries, keys and values, (1, H, T, d) each."""
    if len(packed.spans) == 1:
        return [(packed.spans[0], query, key, value)]
    lengths = packed.lengths
    return zip(
        packed.spans,
        torch.split(query, lengths, dim=2),
        torch.split(key, lengths, dim=2),
        torch.split(value, lengths, dim=2),
        strict=True,
    )


def _attend(
    query: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    *,
    mask: torch.Tensor | None,
    scale: float,
) -> torch.Tensor:
    """The attention (1, H, T, e) of one session's new rows over what they see."""
    _, heads, rows, width = query.shape
    groups = heads // keys.shape[1]
    if rows == 1 and groups > 1:  # one row: the heads of a group can stand where rows stand
        packed = query.view(1, keys.shape[1], groups, width)
        output = scaled_dot_product_attention(packed, keys, values, scale=scale)
        return output.reshape(1, heads, 1, values.shape[-1])
    if groups > 1:
        keys, values = _repeat(keys, groups), _repeat(values, groups)
    return scaled_dot_product_attention(
        query, keys, values, attn_mask=mask, is_causal=mask is None and rows > 1, scale=scale
    )


def _attend_capped(
    query: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    *,
    mask: torch.Tensor | None,
    scale: float,
    softcap: float,
) -> torch.Tensor:
    """As `_attend`, with bounded scores, which torch's fused attention does not offer."""
    _, heads, rows, width = query.shape
    seen = keys.shape[2]
    grouped = query.reshape(1, keys.shape[1], -1, width)  # (1, H / G, G T, d)
    scores = softcap * torch.tanh(grouped @ keys.transpose(2, 3) * scale / softcap)
    scores = scores.view(1, heads, rows, seen)
    if mask is None and rows > 1:
        mask = torch.ones(rows, seen, dtype=torch.bool, device=query.device).tril()
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf)
    weights = torch.softmax(scores, dim=-1, dtype=torch.float32).to(query.dtype)
    output = weights.view(1, keys.shape[1], -1, seen) @ values
    return output.view(1, heads, rows, values.shape[-1])


def _repeat(states: torch.Tensor, groups: int) -> torch.Tensor:
    batch, heads, rows, width = states.shape
    expanded = states[:, :, None].expand(batch, heads, groups, rows, width)
    return expanded.reshape(batch, heads * groups, rows, width)


# No mask function is registered under the name: transformers then makes no mask at all.
AttentionInterface.register(NAME, packed_attention)
