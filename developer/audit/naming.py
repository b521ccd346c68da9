"""Which of k texts is the real one: what a cloud that reads all of them can tell.

The attacker has read every text of every request (K2), has the model that the texts were
written for, and remembers all earlier requests.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from random import Random
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from triparty.common.decoys import DecoyTexts, turns

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_BATCH = 256

Requests = NDArray[np.int64]
"""(Q, k, T) token ids: what the cloud reads of Q requests, k texts each."""


def requests_among_decoys(
    real: NDArray[np.int64], decoys: int, texts: DecoyTexts, random: Random
) -> tuple[Requests, NDArray[np.int64]]:
    """Requests (Q, k, T) as a device sends them, and the place (Q,) of each real one.

    Args:
        real: (Q, T) the questions.
        decoys: texts beside each, k - 1.
        texts: to draw them from.
        random: the draws.
    """
    requests, places = [], []
    for question in real:
        streams = [question.tolist()]
        streams += [texts.draw(len(question), random) for _ in range(decoys)]
        order = turns(len(streams), random)
        requests.append([streams[number] for number in order])
        places.append(order.index(0))
    return np.array(requests), np.array(places)


def named_shares(
    requests: Requests,
    places: NDArray[np.int64],
    *,
    model: PreTrainedModel,
    unigrams: NDArray[np.float64],
) -> Mapping[str, float]:
    """Share of requests whose real text each way of telling names, by what it looks at.

    Args:
        requests: (Q, k, T).
        places: (Q,) the truth.
        model: that the texts were written for.
        unigrams: (V,) how often tokens occur.
    """
    count, streams, length = requests.shape
    texts = requests.reshape(-1, length)
    ways: dict[str, Callable[[], NDArray[np.float64]]] = {
        "likelihood": lambda: _likelihoods(model, texts),
        "frequency": lambda: np.log(unigrams)[texts].mean(axis=1),
        "repetition": lambda: _novelty(requests).ravel(),
        "order": lambda: np.tile(-np.arange(streams, dtype=np.float64), count),
    }
    return {
        name: _named(scores().reshape(count, streams), places) for name, scores in ways.items()
    }


def _named(scores: NDArray[np.float64], places: NDArray[np.int64]) -> float:
    """Share named if the highest score is taken, equal ones being drawn among."""
    most = scores == scores.max(axis=1, keepdims=True)
    right = most[np.arange(len(places)), places]
    return float((right / most.sum(axis=1)).mean())


def _likelihoods(model: PreTrainedModel, texts: NDArray[np.int64]) -> NDArray[np.float64]:
    """(N,) mean log-likelihood of each text's tokens under the model."""
    import torch

    if texts.shape[1] < 2:
        return np.zeros(len(texts))
    found = []
    with torch.inference_mode():
        for at in range(0, len(texts), _BATCH):
            ids = torch.from_numpy(texts[at : at + _BATCH])
            chances = model(input_ids=ids).logits[:, :-1].float().log_softmax(dim=-1)
            picked = chances.gather(2, ids[:, 1:, None])[..., 0]
            found.append(picked.mean(dim=1).numpy().astype(np.float64))
    return np.concatenate(found)


def _novelty(requests: Requests) -> NDArray[np.float64]:
    """(Q, k) 1 for a text that no other request has, less for each that has it."""
    seen = Counter(tuple(text) for request in requests for text in request.tolist())
    return np.array(
        [[1.0 - seen[tuple(text)] for text in request] for request in requests.tolist()]
    )
