"""Text for measurements, drawn from the model itself: its own distribution, in any amount."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_BATCH = 128


def drawn_texts(
    model: PreTrainedModel, count: int, length: int, *, begin: int, never: set[int], seed: int
) -> NDArray[np.int64]:
    """Texts (count, length) of token ids, drawn token by token at temperature 1.

    Args:
        model: a causal language model.
        count: how many texts.
        length: tokens of each.
        begin: the token that each begins with.
        never: tokens that are not drawn: ends, so that all texts have one length.
        seed: of the draws: texts for a search and texts for its report have different ones.
    """
    import torch

    draws = torch.Generator().manual_seed(seed)
    batches = []
    with torch.inference_mode():
        for at in range(0, count, _BATCH):
            ids = torch.full((min(_BATCH, count - at), 1), begin)
            said = model(input_ids=ids, use_cache=True)
            for _ in range(length - 1):
                chances = torch.softmax(said.logits[:, -1].float(), dim=-1)
                chances[:, sorted(never | {begin})] = 0
                fresh = torch.multinomial(chances, 1, generator=draws)
                ids = torch.cat([ids, fresh], dim=1)
                said = model(
                    input_ids=fresh, past_key_values=said.past_key_values, use_cache=True
                )
            batches.append(ids.numpy())
    texts: NDArray[np.int64] = np.concatenate(batches)
    return texts


def unigrams(texts: NDArray[np.int64], vocabulary: int) -> NDArray[np.float64]:
    """(V,) how often each token occurs in texts, adding up to 1; none is 0."""
    counts = np.bincount(texts.ravel(), minlength=vocabulary) + 0.05
    shares: NDArray[np.float64] = counts / counts.sum()
    return shares
