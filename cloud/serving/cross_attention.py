"""Attention of decoders that answer a text, over a packed batch; see `attention`.

Two things differ from other decoders. Scores get a bias by distance, which the stock class
would compute for the packed sequence as if it were one text: here each span gets its own.
And a second attention of each layer looks at the session's memory: keys and values of the
text that its encoder read once, which all rows see.

Shapes are those of `attention`; `S` rows of a memory.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

from triparty.cloud.serving.attention import Span

NAME = "triparty_packed_cross"

Distances = Callable[[int, int], torch.Tensor]
"""The bias (1, H, T, L) of T rows that begin at a position, over all L rows to their end."""


@dataclass(frozen=True, eq=False)
class AnsweringBatch:
    """Whose rows are where in a packed sequence, and how distances count.

    Attributes:
        spans: in order; each cache has a memory.
        distances: of the model, from rows and position.
    """

    spans: Sequence[Span]
    distances: Distances
    _biases: dict[int, torch.Tensor] = field(default_factory=dict, init=False, repr=False)

    def bias(self, number: int, like: torch.Tensor) -> torch.Tensor:
        """What is added to the scores of a span, in all layers: -inf where it may not look."""
        if number not in self._biases:
            span = self.spans[number]
            end = span.position + span.rows
            bias = self.distances(span.rows, span.position)
            row = torch.arange(span.position, end, device=bias.device)[:, None]
            later = torch.arange(end, device=bias.device) > row
            self._biases[number] = bias.masked_fill(later, -torch.inf)
        return self._biases[number].to(like.device, like.dtype)


def packed_cross_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    packed: AnsweringBatch,
    scaling: float,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """The attention function that transformers calls twice in every layer of the decoder.

    Args:
        module: the layer's attention module; `is_causal` where it looks at the answer itself,
            `layer_idx` names the layer.
        query: (1, H, N, d).
        key: new keys (1, H, N, d); unused where a memory is looked at.
        value: new values, as `key`.
        attention_mask: unused; spans bring their own.
        packed: whose rows are where.
        scaling: factor of the scores.

    Returns:
        (1, N, H, d), and no attention weights.
    """
    index = module.layer_idx
    if not isinstance(index, int):
        raise TypeError(f"an attention module has an integer layer_idx, got {index!r}")
    outputs, start = [], 0
    for number, span in enumerate(packed.spans):
        rows = slice(start, start + span.rows)
        start += span.rows
        if module.is_causal:
            layer = span.cache.layers[index]
            keys, values = layer.update(key[:, :, rows], value[:, :, rows])
            bias = packed.bias(number, query)
        else:
            (keys, values), bias = span.cache.memory[index], None
        outputs.append(
            scaled_dot_product_attention(
                query[:, :, rows], keys, values, attn_mask=bias, scale=scaling
            )
        )
    return torch.cat(outputs, dim=2).transpose(1, 2).contiguous(), None


# No mask function is registered under the name: transformers then makes no mask at all.
AttentionInterface.register(NAME, packed_cross_attention)
