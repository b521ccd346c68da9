"""Solves a substitution cipher: which symbol is which token, by how they follow each other.

How often symbols occur ranks them, which is a beginning. How often one follows another is a
matrix over symbols, and over tokens in any text of the language; the best reordering of one
into the other is a quadratic assignment. It is approached from between all orders at once (the
fast approximate method of Vogelstein et al., PLOS ONE 2015), then improved by the likelihood of
the traffic in the language.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment  # type: ignore[import-untyped]

from triparty.developer.audit.claims import UNKNOWN, Matrix

Ids = NDArray[np.int64]

MOST_SYMBOLS = 1024
"""The most frequent symbols and tokens that are looked at: time grows with their cube."""
_ROUNDS = 40
_REFINEMENTS = 30
_SHARPNESS = 0.5  # in nats of frequency: how near ranks hold each other at the beginning
_UNSEEN = 0.1  # pairs of tokens that the language has but the text at hand has not
_STILL = 1e-6


@dataclass(frozen=True, eq=False)
class Counts:
    """How often symbols occur and follow each other.

    Attributes:
        symbols: (n,) the most frequent ones, most frequent first.
        pairs: (n, n) how often the second comes right after the first.
        alone: (n,) how often each occurs.
    """

    symbols: Ids
    pairs: Matrix
    alone: Matrix

    @classmethod
    def of(cls, texts: Sequence[Ids], *, most: int = MOST_SYMBOLS) -> Counts:
        """Counts in some texts."""
        everything = np.concatenate(texts)
        size = int(everything.max()) + 1
        alone = np.bincount(everything, minlength=size)
        symbols = np.argsort(-alone, kind="stable")[:most]
        symbols = symbols[alone[symbols] > 0]
        places = np.full(size, UNKNOWN, np.int64)
        places[symbols] = np.arange(len(symbols))
        firsts = places[np.concatenate([text[:-1] for text in texts])]
        seconds = places[np.concatenate([text[1:] for text in texts])]
        both = (firsts != UNKNOWN) & (seconds != UNKNOWN)
        flat = firsts[both] * len(symbols) + seconds[both]
        pairs = np.bincount(flat, minlength=len(symbols) ** 2).astype(np.float64)
        shape = len(symbols), len(symbols)
        return cls(symbols, pairs.reshape(shape), alone[symbols].astype(np.float64))


def by_rank(seen: Counts, language: Counts) -> Ids:
    """(n,) the token of each symbol that is as frequent as it, `UNKNOWN` past the last."""
    found = np.full(len(seen.symbols), UNKNOWN, np.int64)
    both = min(len(found), len(language.symbols))
    found[:both] = language.symbols[:both]
    return found


def by_pairs(seen: Counts, language: Counts) -> Ids:
    """(n,) the token of each symbol, by what stands next to it."""
    order = _refined(_approached(seen, language), seen, language)
    inside = order < len(language.symbols)
    found = language.symbols[np.minimum(order, len(language.symbols) - 1)]
    return np.where(inside, found, UNKNOWN)


def _approached(seen: Counts, language: Counts) -> Ids:
    """(n,) an order in which square roots of pair frequencies are alike."""
    size = max(len(seen.symbols), len(language.symbols))
    mine, theirs = _roots(seen.pairs, size), _roots(language.pairs, size)
    between = _beginning(_padded(seen.alone, size), _padded(language.alone, size))
    for _ in range(_ROUNDS):
        gradient = mine @ between @ theirs.T + mine.T @ between @ theirs
        step = np.zeros_like(between)
        step[np.arange(size), _assigned(gradient)] = 1
        step -= between
        slope = float((gradient * step).sum())
        bend = float((mine @ step @ theirs.T * step).sum())
        share = 1.0 if bend >= 0 else min(1.0, -slope / (2 * bend))
        between = between + share * step
        if slope <= _STILL or share <= _STILL:
            break
    return _assigned(between)[: len(seen.symbols)]


def _beginning(mine: Matrix, theirs: Matrix) -> Matrix:
    """A doubly stochastic matrix: symbols beside tokens of nearly their frequency."""
    logs = [np.log((alone + 0.5) / alone.sum()) for alone in (mine, theirs)]
    near = np.exp(-(((logs[0][:, None] - logs[1]) / _SHARPNESS) ** 2) / 2) + 1e-9
    for _ in range(100):
        near /= near.sum(axis=1, keepdims=True)
        near /= near.sum(axis=0, keepdims=True)
    result: Matrix = near
    return result


def _refined(order: Ids, seen: Counts, language: Counts) -> Ids:
    """The order improved as long as the traffic becomes likelier."""
    size = max(len(seen.symbols), len(language.symbols))
    pairs = _padded(seen.pairs, size)
    logs = _log_likelihoods(language, size)
    order = np.concatenate([order, np.setdiff1d(np.arange(size), order)])
    best, likeliest = order, _likelihood(pairs, logs, order)
    for _ in range(_REFINEMENTS):
        following, followed = logs[:, order].T, logs[order]
        order = _assigned(pairs @ following + pairs.T @ followed)
        likelihood = _likelihood(pairs, logs, order)
        if likelihood <= likeliest:
            break
        best, likeliest = order, likelihood
    return best[: len(seen.symbols)]


def _likelihood(pairs: Matrix, logs: Matrix, order: Ids) -> float:
    return float((pairs * logs[np.ix_(order, order)]).sum())


def _log_likelihoods(language: Counts, size: int) -> Matrix:
    """(size, size) of a token after another, unseen pairs as likely as tokens by themselves."""
    alone = _padded(language.alone, size) + _UNSEEN
    pairs = _padded(language.pairs, size)
    expected = alone / alone.sum()
    rows = pairs.sum(axis=1, keepdims=True)
    weight = _UNSEEN * np.sqrt(rows + 1)
    logs: Matrix = np.log((pairs + weight * expected) / (rows + weight))
    return logs


def _roots(pairs: Matrix, size: int) -> Matrix:
    roots: Matrix = np.sqrt(_padded(pairs, size) / pairs.sum())
    return roots


def _padded(values: Matrix, size: int) -> Matrix:
    padded: Matrix = np.pad(values, [(0, size - length) for length in values.shape])
    return padded


def _assigned(gain: Matrix) -> Ids:
    """(n,) for each row another column, together of the largest gain."""
    return np.asarray(linear_sum_assignment(gain, maximize=True)[1], np.int64)
