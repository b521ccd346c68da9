"""Running a checkpoint in its stock class as an attacker does, and looking inside.

The cloud runs the hosted model on the rows that reach it, so it has all that the model
computes: the residual after every block, the cache, attention maps. Who has public base
weights runs those on every token that a text may go on with, and compares.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from triparty.developer.audit.claims import Rows
from triparty.developer.audit.views import ModelView

if TYPE_CHECKING:
    import torch

Values = NDArray[np.float64]

AT_ONCE = 128  # tokens that are tried in one pass
_NEVER = -1e30


@dataclass(frozen=True, eq=False)
class Inside:
    """What the first B blocks of a model compute of T rows that have P rows before them.

    Attributes:
        states: (B + 1, T, D) the residual before the first block and after each.
        keys: (B, G, T, h) of the cache, positions applied.
        values: (B, G, T, v) of the cache.
        attention: (B, H, T, P + T) share of each head's attention that goes to each row; of
            rows that were only tried, (B, H, T, P + 1), the last being the row itself.
    """

    states: Values
    keys: Values
    values: Values
    attention: Values


class Running:
    """One text in a stock decoder, extended row by row.

    Args:
        model: the checkpoint.
        depth: how many blocks to run; None for all.
    """

    def __init__(self, model: ModelView, depth: int | None = None) -> None:
        """Loads the first blocks.

        Raises:
            CheckpointError: it does not load.
        """
        loaded: Any = model.load("AutoModel")
        loaded.float()
        loaded.set_attn_implementation("eager")
        self._model, self._blocks = loaded, _shortened(loaded, depth)
        self._states: list[torch.Tensor] = []
        for block in self._blocks:
            block.register_forward_hook(self._keep)
        self._blocks[0].register_forward_pre_hook(self._begin)
        self.forget()

    @property
    def depth(self) -> int:
        """How many blocks it runs."""
        return len(self._blocks)

    @property
    def begin(self) -> int | None:
        """The token that its texts begin with, if it has one."""
        token = self._model.config.bos_token_id
        return token if isinstance(token, int) else None

    @property
    def length(self) -> int:
        """Rows of the text so far."""
        return int(self._cache.get_seq_length())

    def forget(self) -> None:
        """Begins another text."""
        from transformers import DynamicCache

        self._cache: Any = DynamicCache()

    def read(self, rows: Rows) -> Inside:
        """Goes on with rows (T, D) that the embedding does not look up."""
        import torch

        return self._extended(inputs_embeds=torch.from_numpy(np.ascontiguousarray(rows))[None])

    def append(self, tokens: Sequence[int]) -> Inside:
        """Goes on with tokens."""
        import torch

        return self._extended(input_ids=torch.tensor([list(tokens)]))

    def tried(self, tokens: NDArray[np.int64]) -> Inside:
        """What each of the tokens would give as the next one; the text stays as it was.

        All are one pass: a token sees the text and itself, and no other candidate.
        """
        parts = [
            self._tried(tokens[at : at + AT_ONCE]) for at in range(0, len(tokens), AT_ONCE)
        ]
        return Inside(
            np.concatenate([part.states for part in parts], axis=1),
            np.concatenate([part.keys for part in parts], axis=2),
            np.concatenate([part.values for part in parts], axis=2),
            np.concatenate([part.attention for part in parts], axis=2),
        )

    def _tried(self, tokens: NDArray[np.int64]) -> Inside:
        import torch

        before, count = self.length, len(tokens)
        mask = torch.zeros(1, 1, count, before + count)
        mask[..., before:] = torch.where(torch.eye(count, dtype=torch.bool), 0.0, _NEVER)
        found = self._run(
            input_ids=torch.from_numpy(tokens)[None],
            position_ids=torch.full((1, count), before),
            attention_mask=mask,
        )
        inside = self._inside(found, count, _of_candidates)
        self._cache.crop(-count)
        return inside

    def _extended(self, **inputs: torch.Tensor) -> Inside:
        import torch

        before, count = self.length, next(iter(inputs.values())).shape[1]
        found = self._run(
            position_ids=torch.arange(before, before + count)[None],
            attention_mask=torch.ones(1, before + count, dtype=torch.long),
            **inputs,
        )
        return self._inside(found, count, _as_they_are)

    def _run(self, **inputs: torch.Tensor) -> Any:
        import torch

        with torch.inference_mode():
            return self._model(
                **inputs,
                past_key_values=self._cache,
                use_cache=True,
                output_attentions=True,
                return_dict=True,
            )

    def _inside(
        self, found: Any, count: int, view: Callable[[torch.Tensor], torch.Tensor]
    ) -> Inside:
        layers = self._cache.layers[: self.depth]
        return Inside(
            np.stack([_numbers(state[0]) for state in self._states]),
            np.stack([_numbers(layer.keys[0, :, -count:]) for layer in layers]),
            np.stack([_numbers(layer.values[0, :, -count:]) for layer in layers]),
            np.stack([_numbers(view(maps[0])) for maps in found.attentions]),
        )

    def _begin(self, block: Any, inputs: Any) -> None:
        self._states = [inputs[0]]

    def _keep(self, block: Any, inputs: Any, output: Any) -> None:
        self._states.append(output[0] if isinstance(output, tuple) else output)


def _as_they_are(maps: torch.Tensor) -> torch.Tensor:
    return maps


def _of_candidates(maps: torch.Tensor) -> torch.Tensor:
    """(H, T, P + 1) of (H, T, P + T): what a candidate gives itself comes last."""
    import torch

    before = maps.shape[2] - maps.shape[1]
    own = maps[..., before:].diagonal(dim1=1, dim2=2)
    return torch.cat([maps[..., :before], own[..., None]], dim=-1)


def _shortened(model: Any, depth: int | None) -> Any:
    """The blocks of a model, of which it keeps the first ones alone."""
    from torch import nn

    count = model.config.num_hidden_layers
    for module in model.modules():
        for name, child in module.named_children():
            if isinstance(child, nn.ModuleList) and len(child) == count:
                kept = child[: depth or count]
                setattr(module, name, kept)
                model.config.num_hidden_layers = len(kept)
                return kept
    raise LookupError(f"{type(model).__name__} has no list of its {count} blocks")


def _numbers(tensor: torch.Tensor) -> Values:
    return tensor.double().numpy()


def logits(model: Any, rows: Rows) -> Values:
    """(T, O) what a loaded decoder answers after each row (T, D) of a text."""
    import torch

    with torch.inference_mode():
        found = model(inputs_embeds=torch.from_numpy(np.ascontiguousarray(rows))[None])
    return _numbers(found.logits[0])
