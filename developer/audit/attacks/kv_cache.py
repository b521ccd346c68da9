"""Collision of the cache, after "Shadow in the Cache" (arXiv:2508.09442).

What queries find in the cache is what they find in the plain one: a key of the scores that
changed that would change the answers. So whoever tries tokens on a public base compares
attention maps, row by row, up to the order of the heads; no key of queries and keys hides
them. Of the cached numbers themselves, a permutation (also one that turns rotary pairs by
quarters, whatever the order of heads) leaves sorted absolute values, of keys and of values.

The first row attends to itself alone, so its map says nothing. It is found with the second
one, whose attention to it depends on both; a begin-of-text token is tried first, then
those whose rows are as long as the first.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from triparty.developer.audit.attack import Target
from triparty.developer.audit.claims import Tokens
from triparty.developer.audit.controls import unrelated_rows
from triparty.developer.audit.decoding import EXACT, decoded, unreadable
from triparty.developer.audit.knowledge import Knowledge
from triparty.developer.audit.levels import Level
from triparty.developer.audit.running import Inside, Values


class KvCache:
    """Finds each token by the attention that its row gives to the rows before it.

    Args:
        blocks: how many blocks are compared.
    """

    name = "kv-cache"
    level = Level.K3
    target = Target.TOKENS
    cites = '"Shadow in the Cache", arXiv:2508.09442'
    means = "A leaked cache of a model with a public base is as good as the text."
    remedy = "Keep the base private; no key that leaves answers as they are hides attention."

    def __init__(self, blocks: int = 2) -> None:
        """Remembers how many."""
        self._blocks = blocks

    def lacks(self, knowledge: Knowledge) -> str | None:
        """It needs a decoder and its base."""
        return unreadable(knowledge)

    def mount(self, knowledge: Knowledge) -> Tokens:
        """The token behind each row, by cached numbers or by maps, whichever fits better."""
        cached, distance = decoded(knowledge, Caches(), depth=self._blocks)
        if distance <= EXACT:
            return cached
        mapped, other = decoded(knowledge, Maps(), depth=self._blocks)
        return cached if distance < other else mapped

    def control(self, knowledge: Knowledge) -> Knowledge:
        """Rows that no key leads to."""
        return replace(knowledge, traffic=unrelated_rows(knowledge.traffic))


class Caches:
    """Compares cached keys and values, which a permutation leaves but for order and signs."""

    sees_first = True

    def distances(self, hosted: Inside, at: int, tried: Inside) -> Values:
        """(C,) distance of sorted values, of the length."""
        far = [
            _distances(_sorted(cache[:, :, at, None]), _sorted(candidates))
            for cache, candidates in ((hosted.keys, tried.keys), (hosted.values, tried.values))
        ]
        both: Values = np.sqrt(np.mean(np.square(far), axis=0))
        return both

    def learn(self, hosted: Inside, at: int, base: Inside) -> None:
        """Nothing: each row is read by itself."""


class Maps:
    """Compares attention maps, which every key leaves but for the order of heads."""

    sees_first = False

    def distances(self, hosted: Inside, at: int, tried: Inside) -> Values:
        """(C,) distance of what heads attend to, the heads in order for each row."""
        shares = hosted.attention[:, :, at, : at + 1]
        candidates = tried.attention.transpose(2, 0, 1, 3)
        return _distances(
            np.sort(shares, axis=1).reshape(1, -1),
            np.sort(candidates, axis=2).reshape(len(candidates), -1),
        )

    def learn(self, hosted: Inside, at: int, base: Inside) -> None:
        """Nothing: what heads attend to needs no key."""


def _sorted(cache: Values) -> Values:
    """(T, B, G h) absolute values in order of a cache (B, G, T, h)."""
    rows = cache.transpose(2, 0, 1, 3)
    return np.sort(np.abs(rows.reshape(*rows.shape[:2], -1)), axis=-1)


def _distances(row: Values, candidates: Values) -> Values:
    """(C,) distances of candidates (C, ...) from a row (1, ...), of its length."""
    far = (candidates - row).reshape(len(candidates), -1)
    distances: Values = np.linalg.norm(far, axis=-1) / np.linalg.norm(row)
    return distances
