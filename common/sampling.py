"""From logits to the next token: pure functions of the logits, the options and a generator.

The device samples from un-keyed logits; for the interface `tokens` the cloud samples keyed
ids from keyed ones.

The order is that of `transformers`: repetition penalty, temperature, top-k, top-p, min-p,
draw; a test compares the distributions step by step. The penalty holds for greedy choice too.

Shapes: `V` tokens of the vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from triparty.common.errors import SettingsError

Logits = NDArray[np.float32]


@dataclass(frozen=True)
class SamplingOptions:
    """How the next token is chosen.

    Attributes:
        temperature: divides the logits; 0 takes the likeliest token (greedy).
        top_k: draw among the k likeliest; 0 means all.
        top_p: draw among the likeliest that together have this probability, 0 < p <= 1
            (Holtzman et al., "The Curious Case of Neural Text Degeneration", 2020).
        min_p: draw among those with at least this share of the likeliest one's probability,
            0 <= p <= 1 (Nguyen et al., "Turning Up the Heat: Min-p Sampling", 2025).
        repetition_penalty: divides the positive logits of tokens that were there before, in
            the question or the answer, and multiplies the negative ones; 1 changes nothing
            (Keskar et al., "CTRL", 2019).
        seed: of the draws; None takes one from the operating system.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    seed: int | None = None

    def __post_init__(self) -> None:
        """Refuses values without a meaning."""
        if not (np.isfinite(self.temperature) and self.temperature >= 0):
            raise SettingsError(f"temperature must be 0 or more, got {self.temperature}")
        if self.top_k < 0:
            raise SettingsError(f"top-k must be 0 (all) or more, got {self.top_k}")
        if self.seed is not None and self.seed < 0:
            raise SettingsError(f"seed must be 0 or more, got {self.seed}")
        if not 0 < self.top_p <= 1:
            raise SettingsError(f"top-p must be above 0 and at most 1, got {self.top_p}")
        if not 0 <= self.min_p <= 1:
            raise SettingsError(f"min-p must be from 0 to 1, got {self.min_p}")
        if not (np.isfinite(self.repetition_penalty) and self.repetition_penalty > 0):
            raise SettingsError(
                f"repetition-penalty must be above 0, got {self.repetition_penalty}"
            )

    @property
    def is_greedy(self) -> bool:
        """Whether the likeliest token is taken and nothing drawn."""
        return self.temperature == 0

    def generator(self) -> np.random.Generator:
        """The generator of one answer's draws."""
        return np.random.default_rng(self.seed)


def distribution(
    logits: Logits, options: SamplingOptions, seen: Sequence[int] = ()
) -> NDArray[np.float64]:
    """The probabilities (V,) from which the next token is drawn; they sum to 1.

    Args:
        logits: (V,) float32.
        options: not greedy.
        seen: ids of question and answer so far, which a repetition penalty is about.
    """
    penalised = _penalised(logits, options.repetition_penalty, seen)
    scores = penalised.astype(np.float64) / options.temperature
    if 0 < options.top_k < scores.size:
        kth = np.partition(scores, -options.top_k)[-options.top_k]
        scores[scores < kth] = -np.inf
    if options.top_p < 1:
        order = np.argsort(scores, kind="stable")
        tail = np.cumsum(_softmax(scores)[order]) <= 1 - options.top_p
        tail[-1] = False  # the likeliest token always stays
        scores[order[tail]] = -np.inf
    if options.min_p > 0:
        shares = _softmax(scores)
        scores[shares < options.min_p * shares.max()] = -np.inf
    return _softmax(scores)


def next_token(
    logits: Logits,
    options: SamplingOptions,
    rng: np.random.Generator,
    seen: Sequence[int] = (),
) -> int:
    """The next token's id.

    Args:
        logits: (V,) float32; the id is one of their order.
        options: how to choose; greedy takes the first of equals.
        rng: advanced by one draw unless greedy.
        seen: ids of question and answer so far, which a repetition penalty is about.
    """
    if options.is_greedy:
        return int(np.argmax(_penalised(logits, options.repetition_penalty, seen)))
    return int(rng.choice(logits.size, p=distribution(logits, options, seen)))


def less_of_the_said(
    logits: Logits, said: Sequence[int], *, presence: float, frequency: float
) -> Logits:
    """Logits (V,) from which OpenAI's penalties were subtracted.

    Args:
        logits: (V,) float32, left as they are.
        said: ids of the answer so far, without the question.
        presence: subtracted once from each token that was said.
        frequency: subtracted for each time that it was said.
    """
    if not len(said) or presence == frequency == 0:
        return logits
    ids, counts = np.unique(np.asarray(said, np.int64), return_counts=True)
    changed = logits.copy()
    changed[ids] -= (presence + frequency * counts).astype(np.float32)
    return changed


def log_probabilities(logits: Logits) -> NDArray[np.float64]:
    """The model's own log-probabilities (V,), before any option changes them."""
    shifted = logits.astype(np.float64) - logits.max()
    logs: NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum())
    return logs


def _penalised(logits: Logits, penalty: float, seen: Sequence[int]) -> Logits:
    if penalty == 1 or not len(seen):
        return logits
    ids = np.unique(np.asarray(seen, np.int64))
    changed = logits.copy()
    changed[ids] = np.where(logits[ids] < 0, logits[ids] * penalty, logits[ids] / penalty)
    return changed


def _softmax(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    weights = np.exp(scores - scores.max())
    total: NDArray[np.float64] = weights / weights.sum()
    return total
