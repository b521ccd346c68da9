"""The engine in this process: one stock model, wherever its layers lie, and its caches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import accumulate, groupby
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel

from triparty.cloud.serving.attention import PackedBatch, Span
from triparty.cloud.serving.cache import SessionCache
from triparty.cloud.serving.engine import (
    Arrays,
    Inputs,
    ModelInfo,
    Reply,
    ReplyKind,
    Rows,
    Work,
)
from triparty.cloud.serving.loading import load_model, load_text_rules
from triparty.cloud.serving.placement import Placement, at_hand, input_device
from triparty.cloud.serving.text import TextRules
from triparty.common.errors import (
    CheckpointError,
    LimitError,
    RequestError,
    UnsupportedModelError,
)

OUT_OF_MEMORY_RETRY_S = 5
BOUNDLESS = 1 << 16
"""Most rows of a session of a model that has no last position."""
HEAD_ROWS = 256
"""Rows that the head runs on at once, or one step's: a row becomes a whole vocabulary."""


class LocalEngine:
    """Runs packed batches of sessions through one model; see `Engine`."""

    reads = False
    """See `ModelInfo.reads`."""

    def __init__(self, model: PreTrainedModel, *, text: TextRules | None = None) -> None:
        """An engine of a model loaded with packed attention (`load_model`).

        Args:
            model: the stock model.
            text: how it generates from ids, if its embedding is real.

        Raises:
            UnsupportedModelError: a model whose head is no linear layer.
            CheckpointError: a model that takes words, without a head.
        """
        config = model.config
        head = model.get_output_embeddings()  # type: ignore[no-untyped-call]
        if not isinstance(head, torch.nn.Linear):
            raise UnsupportedModelError(f"{type(model).__name__} has no linear head")
        self._model = model
        self._body = self._decoder_of(model)
        self._device = input_device(model)
        self._head = head
        self._softcap: float | None = getattr(config, "final_logit_softcapping", None)
        self._embedding = model.get_input_embeddings()
        self._layers: int = self._body.config.num_hidden_layers
        self._caches: dict[str, SessionCache] = {}
        replies = _allowed(head)
        if text is not None and ReplyKind.ID not in replies:
            raise CheckpointError(
                "the model takes words, and its head is zeros, so that it has none to say: "
                "publish it with its head"
            )
        self._info = ModelInfo(
            family=config.model_type,
            width=config.hidden_size,
            vocabulary=config.vocab_size,
            positions=getattr(config, "max_position_embeddings", BOUNDLESS),
            text=text,
            replies=replies,
            reads=self.reads,
        )
        self._info = replace(self._info, cache_row_bytes=self._measured_row_bytes())

    def _decoder_of(self, model: PreTrainedModel) -> Any:
        """The part of a model whose layers run batches."""
        return model.base_model

    def _measured_row_bytes(self) -> int:
        """What one row takes in all layers: families differ in what they cache."""
        row = np.zeros((1, self._info.width), np.float32)
        self.run([Work(session="", position=0, rows=row, reply=None)])
        (cache,) = self._caches.values()
        row_bytes = sum(layer.nbytes // layer.capacity for layer in cache.layers)
        self.close("")
        return row_bytes

    @classmethod
    def load(cls, folder: Path, placement: Placement | None = None) -> Self:
        """The engine of a published folder, where `placement` says (None: `auto`)."""
        model = load_model(folder, placement=placement or Placement())
        return cls(model, text=load_text_rules(folder, vocabulary=model.config.vocab_size))

    @property
    def info(self) -> ModelInfo:
        """What serving must know of the model."""
        return self._info

    @property
    def cache_bytes(self) -> int:
        """Bytes that the sessions' caches have allocated; any thread may ask."""
        return sum(cache.nbytes for cache in list(self._caches.values()))

    def run(self, batch: Sequence[Work]) -> list[Arrays]:
        """Runs a batch of different sessions; see `Engine.run`."""
        with inference():
            hidden = self._forward(batch)
            return self._replies(batch, hidden)

    def read(self, session: str, rows: Rows) -> None:
        """No session of this engine reads a text; see `Engine.read`."""
        raise RequestError("this model has no encoder: send the text in steps")

    def fork(self, source: str, target: str, *, position: int) -> None:
        """Copies the first `position` rows of a cache; see `Engine.fork`."""
        with torch.inference_mode():
            self._caches[target] = self._cache(source).copy(position)

    def close(self, session: str) -> None:
        """Frees a session's cache; see `Engine.close`."""
        self._caches.pop(session, None)

    def _cache(self, session: str) -> SessionCache:
        cache = self._caches.get(session)
        if cache is None:
            cache = SessionCache.empty(layers=self._layers, most_rows=self._info.positions)
            self._caches[session] = cache
        return cache

    def _forward(self, batch: Sequence[Work]) -> torch.Tensor:
        """The hidden states (N, D) of all rows of a batch, after the final norm."""
        spans = [
            Span.of(
                position=work.position, rows=len(work.rows), cache=self._cache(work.session)
            )
            for work in batch
        ]
        rows = self._embedded(work.rows for work in batch)[None]
        output = self._body(inputs_embeds=rows, use_cache=False, **self._arguments(spans))
        hidden: torch.Tensor = output.last_hidden_state[0]
        return hidden

    def _arguments(self, spans: Sequence[Span]) -> Mapping[str, Any]:
        """What the model is told of a batch, beside its rows."""
        positions = np.concatenate(
            [np.arange(span.position, span.position + span.rows) for span in spans]
        )
        return {
            "position_ids": torch.from_numpy(positions).to(self._device)[None],
            "packed": PackedBatch(spans),
        }

    def _embedded(self, inputs: Iterable[Inputs]) -> torch.Tensor:
        """The rows (N, D) of a batch, in the weights' dtype; ids are looked up."""
        dtype = self._head.weight.dtype
        parts = []
        for is_ids, group in groupby(inputs, key=lambda given: given.ndim == 1):
            joined = torch.from_numpy(np.concatenate(list(group))).to(self._device)
            parts.append(self._embedding(joined) if is_ids else joined.to(dtype))
        return torch.cat([part.to(self._device) for part in parts])

    def _replies(self, batch: Sequence[Work], hidden: torch.Tensor) -> list[Arrays]:
        """The reply of each work from its hidden states; the head runs on what needs it."""
        ends = accumulate(len(work.rows) for work in batch)
        replies: list[Arrays] = [()] * len(batch)
        wanted: dict[int, tuple[Reply, torch.Tensor]] = {}
        for at, (work, end) in enumerate(zip(batch, ends, strict=True)):
            if work.reply is None:
                continue
            states = hidden[end - work.reply.rows : end]
            if work.reply.kind is ReplyKind.HIDDEN:
                replies[at] = (_array(states.float()),)
            else:
                wanted[at] = (work.reply, states)
        for group in _groups({at: reply.rows for at, (reply, _) in wanted.items()}):
            logits = self._logits(torch.cat([wanted[at][1] for at in group]))
            counts = [wanted[at][0].rows for at in group]
            for at, part in zip(group, torch.split(logits, counts), strict=True):
                replies[at] = _reply(wanted[at][0], part)
        return replies

    def _logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """The logits (B, V), float32, bounded where the family bounds them."""
        logits: torch.Tensor = self._head(hidden)
        if self._softcap is not None:
            logits = self._softcap * torch.tanh(logits / self._softcap)
        return logits.float()


@contextmanager
def inference() -> Iterator[None]:
    """Runs a block without gradients.

    Raises:
        LimitError: the accelerator has no memory left.
    """
    try:
        with torch.inference_mode():
            yield
    except torch.OutOfMemoryError as error:
        raise LimitError(
            "the accelerator has no memory left for this step: repeat it later",
            retry_after_s=OUT_OF_MEMORY_RETRY_S,
        ) from error


def _allowed(head: torch.nn.Linear) -> tuple[ReplyKind, ...]:
    """What devices may ask of a model: a head of zeros stands for one that they have."""
    with at_hand(head):
        return tuple(ReplyKind) if bool(head.weight.any()) else (ReplyKind.HIDDEN,)


def _groups(rows: Mapping[int, int]) -> list[list[int]]:
    """The works in order, in groups of at most `HEAD_ROWS` rows, or of one work."""
    groups: list[list[int]] = []
    room = 0
    for at, count in rows.items():
        if count > room:
            groups.append([])
            room = HEAD_ROWS
        groups[-1].append(at)
        room -= count
    return groups


def _reply(reply: Reply, logits: torch.Tensor) -> Arrays:
    """The arrays of a reply that is made of logits (N, V)."""
    if reply.kind is ReplyKind.LOGITS:
        return (_array(logits),)
    if reply.kind is ReplyKind.ID:
        return (_array(logits.argmax(-1).int()),)
    values, indices = logits.topk(reply.k)
    return _array(values), _array(indices.int())


def _array(tensor: torch.Tensor) -> NDArray[np.float32 | np.int32]:
    array: NDArray[np.float32 | np.int32] = tensor.cpu().numpy()
    return array
