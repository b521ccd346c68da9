"""The engine of models with an encoder and a decoder (T5), in this process.

The encoder runs once a session, on the whole text and alone; what the decoder's layers look at
in it (keys and values, the session's memory) is computed then and kept. The decoder's rows of
all sessions go through the stock decoder in packed batches, like those of any other decoder.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from transformers import PreTrainedModel

from triparty.cloud.serving.attention import Span
from triparty.cloud.serving.cache import Memory, SessionCache
from triparty.cloud.serving.cross_attention import AnsweringBatch
from triparty.cloud.serving.engine import Rows
from triparty.cloud.serving.families import FOREIGN, one_line
from triparty.cloud.serving.loading import load_seq2seq
from triparty.cloud.serving.local import LocalEngine, inference
from triparty.cloud.serving.placement import Placement, at_hand
from triparty.common.errors import CheckpointError


class Seq2SeqEngine(LocalEngine):
    """Runs packed batches of sessions that each answer a text; see `Engine`."""

    reads = True

    def __init__(self, model: PreTrainedModel) -> None:
        """An engine of a model that `load_seq2seq` loaded."""
        stock: Any = model
        self._encoder = stock.encoder
        first = stock.decoder.block[0].layer[0].SelfAttention
        self._bias_of = type(first).compute_bias
        self._first = first
        # The stock layer would make one for the packed sequence, (1, H, N, N), for nothing.
        first.compute_bias = _no_bias
        scales = getattr(model.config, "scale_decoder_outputs", False)  # MT5 never does
        self._scale = model.config.d_model**-0.5 if scales else None
        super().__init__(model)

    @classmethod
    def load(cls, folder: Path, placement: Placement | None = None) -> Self:
        """The engine of a published folder, where `placement` says (None: `auto`).

        Raises:
            CheckpointError: it cannot be served, or does not run.
        """
        model = load_seq2seq(folder, placement=placement or Placement())
        try:
            return cls(model)
        except FOREIGN as error:
            raise CheckpointError(f"the model does not run: {one_line(error)}") from error

    def read(self, session: str, rows: Rows) -> None:
        """Has the encoder read the text that a session answers; see `Engine.read`."""
        with inference():
            text = torch.from_numpy(rows).to(self._device, self._head.weight.dtype)[None]
            encoded = self._encoder(inputs_embeds=text).last_hidden_state
            memory = tuple(self._looked_at(block, encoded) for block in self._body.block)
            self._caches[session] = self._new_cache(memory)

    def _looked_at(
        self, block: Any, encoded: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values (1, H, S, d) of a text (1, S, D) in one layer of the decoder."""
        attention = block.layer[1].EncDecAttention
        shape = (1, encoded.shape[1], -1, attention.key_value_proj_dim)
        parts = []
        for part in (attention.k, attention.v):
            with at_hand(part):
                made = part(encoded.to(part.weight.device))
            parts.append(made.view(shape).transpose(1, 2))
        return parts[0], parts[1]

    def _new_cache(self, memory: Memory) -> SessionCache:
        return SessionCache.empty(
            layers=self._layers, most_rows=self._info.positions, memory=memory
        )

    def _decoder_of(self, model: PreTrainedModel) -> Any:
        return model.decoder

    def _measured_row_bytes(self) -> int:
        self.read("", np.zeros((1, self._info.width), np.float32))
        return super()._measured_row_bytes()

    def _arguments(self, spans: Sequence[Span]) -> Mapping[str, Any]:
        width = self._info.width
        # One row, of which nobody looks at anything, has stock layers look at a text at all.
        text = torch.zeros(1, 1, width, device=self._device, dtype=self._head.weight.dtype)
        return {
            "encoder_hidden_states": text,
            "packed": AnsweringBatch(spans, self._distances),
        }

    def _distances(self, rows: int, position: int) -> torch.Tensor:
        with at_hand(self._first.relative_attention_bias):
            bias: torch.Tensor = self._bias_of(
                self._first, rows, position + rows, past_seen_tokens=position
            )
            return bias

    def _logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """The logits (B, V), float32, of hidden states scaled as tied checkpoints want it."""
        return super()._logits(hidden if self._scale is None else hidden * self._scale)


def _no_bias(*_: Any, **__: Any) -> torch.Tensor:
    return torch.zeros(())
