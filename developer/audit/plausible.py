"""Text for measurements, drawn from the model itself: its own distribution, in any amount."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_BATCH = 128


def drawn_texts(
    model: PreTrainedModel, count: int, length: int, *, seed: int
) -> NDArray[np.int64]:
    """Texts (count, length) of token ids, drawn token by token at temperature 1.

    Each begins with the token that texts of the model begin with (its first one, if it knows
    none); neither that one nor an end nor padding is drawn later, so that all texts have one
    length.

    Args:
        model: a causal language model.
        count: how many texts.
        length: tokens of each.
        seed: of the draws: texts for a search and texts for its report have different ones.
    """
    import torch

    config = model.config
    begin = _within(config.bos_token_id, model) or [0]
    ends = _within(config.eos_token_id, model), _within(config.pad_token_id, model)
    never = sorted({begin[0], *ends[0], *ends[1]})
    draws = torch.Generator().manual_seed(seed)
    batches = []
    with torch.inference_mode():
        for at in range(0, count, _BATCH):
            ids = torch.full((min(_BATCH, count - at), 1), begin[0])
            said = model(input_ids=ids, use_cache=True)
            for _ in range(length - 1):
                chances = torch.softmax(said.logits[:, -1].float(), dim=-1)
                chances[:, never] = 0
                fresh = torch.multinomial(chances, 1, generator=draws)
                ids = torch.cat([ids, fresh], dim=1)
                said = model(
                    input_ids=fresh, past_key_values=said.past_key_values, use_cache=True
                )
            batches.append(ids.numpy())
    texts: NDArray[np.int64] = np.concatenate(batches)
    return texts


def _within(ids: int | list[int] | None, model: PreTrainedModel) -> list[int]:
    """Special tokens as a list, without those that the vocabulary does not have."""
    given = ids if isinstance(ids, list) else [ids]
    return [int(one) for one in given if one is not None and one < model.config.vocab_size]


def unigrams(texts: NDArray[np.int64], vocabulary: int) -> NDArray[np.float64]:
    """(V,) how often each token occurs in texts, adding up to 1; none is 0."""
    counts = np.bincount(texts.ravel(), minlength=vocabulary) + 0.05
    shares: NDArray[np.float64] = counts / counts.sum()
    return shares
