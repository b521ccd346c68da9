"""Vocabulary matching on hidden states, after Thomas et al. (arXiv:2505.18332).

The cloud has the residual after every block of the model that it runs; a public base gives
the same states, up to the residual's key, to whoever finds the tokens. Of a state, a
permutation leaves the sorted absolute values. Any rotation leaves the length and the inner
products with other states of the same key, and the states that were read already tell the
key on all that they span: what is compared is the least distance that is left under any key
of the kind. Which kind of key it is shows in what fits better.

States after the first block are the cheapest and fit best; deeper ones show the same tokens.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from triparty.developer.audit.attack import Target
from triparty.developer.audit.claims import Tokens
from triparty.developer.audit.controls import unrelated
from triparty.developer.audit.decoding import decoded, unreadable
from triparty.developer.audit.knowledge import Knowledge
from triparty.developer.audit.levels import Level
from triparty.developer.audit.running import Inside, Values

_GROWTH = 1.05  # pairs are fitted again when there are so many times more
_SPANNED = 0.02  # of the largest singular value: what the pairs say something about
_EXACT = 1e-3  # a distance that drift does not leave


class HiddenVocabulary:
    """Finds each token by what it does to the residual after some block."""

    name = "hidden-vocabulary"
    level = Level.K3
    target = Target.TOKENS
    cites = "Thomas et al., arXiv:2505.18332"
    means = "Who knows what the model was trained from reads every question off what it computes."
    remedy = "Keep the base private, or add noise that is large beside its drift."

    def __init__(self, blocks: int = 1) -> None:
        """Looks at the residual after so many blocks."""
        self._blocks = blocks

    def lacks(self, knowledge: Knowledge) -> str | None:
        """It needs a decoder and its base."""
        return unreadable(knowledge)

    def mount(self, knowledge: Knowledge) -> Tokens:
        """The token behind each row, under the kind of key that fits better."""
        tokens, distance, fit = self._under(knowledge, permuted=True)
        if distance > _EXACT:
            rotated, _, other = self._under(knowledge, permuted=False)
            tokens = rotated if other < fit else tokens
        return tokens

    def _under(self, knowledge: Knowledge, *, permuted: bool) -> tuple[Tokens, float, float]:
        states = States(permuted)
        tokens, distance = decoded(knowledge, states, depth=self._blocks)
        return tokens, distance, states.misfit()

    def control(self, knowledge: Knowledge) -> Knowledge:
        """Rows that no key leads to."""
        return replace(knowledge, traffic=unrelated(knowledge.traffic))


@dataclass
class States:
    """The residual after the last block that was run, and what pairs of it tell of the key.

    Attributes:
        permuted: whether the key is one that only permutes, up to signs.
    """

    permuted: bool
    _plain: list[Values] = field(default_factory=list)
    _keyed: list[Values] = field(default_factory=list)
    _fitted: int = 0
    _left: Values | None = None
    _right: Values | None = None

    def distances(self, hosted: Inside, at: int, tried: Inside) -> Values:
        """(C,) least distance under any key that fits the pairs so far, of the length."""
        state, candidates = hosted.states[-1, at], tried.states[-1]
        far = self._rotated(state, candidates)
        if self.permuted and len(state) == candidates.shape[1]:
            sorted_ = np.sort(np.abs(candidates), axis=-1) - np.sort(np.abs(state))
            far = np.maximum(far, np.linalg.norm(sorted_, axis=-1))
        return far / np.linalg.norm(state)

    def learn(self, hosted: Inside, at: int, base: Inside) -> None:
        """Fits the key on what the pairs span, now and then."""
        for kept, state in ((self._keyed, hosted.states[-1, at]), (self._plain, base.states[-1, -1])):
            kept.append(state / np.linalg.norm(state))
        if len(self._plain) >= max(self._fitted * _GROWTH, self._fitted + 1):
            self._fit()

    def misfit(self) -> float:
        """How far the pairs are from each other under the rotation that fits them best."""
        if not self._plain:
            return 0.0
        spectrum = np.linalg.svd(self._products(), compute_uv=False)
        return 1.0 - float(spectrum.sum()) / len(self._plain)

    def _products(self) -> Values:
        product: NDArray[np.float64] = np.array(self._plain).T @ np.array(self._keyed)
        return product

    def _fit(self) -> None:
        left, spectrum, right = np.linalg.svd(self._products(), full_matrices=False)
        spanned = spectrum > _SPANNED * spectrum[0]
        self._left, self._right = left[:, spanned], right[spanned].T
        self._fitted = len(self._plain)

    def _rotated(self, state: Values, candidates: Values) -> Values:
        """Least distance under any rotation that does what the fitted one does."""
        square, squares = float(state @ state), np.einsum("cd,cd->c", candidates, candidates)
        near = np.zeros(len(candidates))
        if self._left is not None and self._right is not None:
            within, found = state @ self._right, candidates @ self._left
            near = np.square(found - within).sum(axis=-1)
            square -= float(within @ within)
            squares = squares - np.einsum("cr,cr->c", found, found)
        rest = np.sqrt(np.maximum(squares, 0)) - np.sqrt(max(square, 0))
        return np.sqrt(near + np.square(rest))
