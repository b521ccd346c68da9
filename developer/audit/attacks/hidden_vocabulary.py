"""Vocabulary matching on hidden states, after Thomas et al. (arXiv:2505.18332).

The cloud has the residual before and after every block of the model that it runs; a public
base gives the same states, up to the residual's key, to whoever finds the tokens. Any
rotation leaves lengths and inner products, of the states of one row and with those of other
rows; rows that were read already tell the key on all that their states span. What is compared
is the least distance that is left under any key of the kind. Of a permutation, sorted absolute
values are left besides, which helps if the base has drifted.

With a base that has drifted there is a second pass: what the first one reads tells the key.
One block is enough; deeper states show the same tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from triparty.developer.audit.attack import Target
from triparty.developer.audit.claims import Tokens
from triparty.developer.audit.controls import unrelated_rows
from triparty.developer.audit.decoding import EXACT, decoded, unreadable
from triparty.developer.audit.distances import Fit, least_distances
from triparty.developer.audit.knowledge import Knowledge
from triparty.developer.audit.levels import Level
from triparty.developer.audit.running import Inside, Values

_GROWTH = 1.05  # the key is fitted again when there are so many times more pairs


class HiddenVocabulary:
    """Finds each token by what it does to the residual.

    Args:
        blocks: after which the residual is looked at, 0 for before the first one.
    """

    name = "hidden-vocabulary"
    level = Level.K3
    target = Target.TOKENS
    cites = "Thomas et al., arXiv:2505.18332"
    means = "Who knows what the model was trained from reads every question as it is computed."
    remedy = "Keep the base private, or add noise that is large beside its drift."

    def __init__(self, blocks: Sequence[int] = (0, 1)) -> None:
        """Remembers where to look."""
        self._blocks = list(blocks)

    def lacks(self, knowledge: Knowledge) -> str | None:
        """It needs a decoder and its base."""
        return unreadable(knowledge)

    def mount(self, knowledge: Knowledge) -> Tokens:
        """The token behind each row, under the kind of key that fits better."""
        states = States(self._blocks)
        tokens, distance, misfit = self._pass(knowledge, states)
        if distance <= EXACT:
            return tokens
        found = [(tokens, misfit), self._again(knowledge, states)]
        states = States(self._blocks, permuted=True)
        tokens, _, misfit = self._pass(knowledge, states)
        found += [(tokens, misfit), self._again(knowledge, states)]
        return min(found, key=lambda one: one[1])[0]

    def _again(self, knowledge: Knowledge, before: States) -> tuple[Tokens, float]:
        """A second pass, with the key that the first one found."""
        states = States(self._blocks, before.permuted, before.fit(), learns=False)
        tokens, _, misfit = self._pass(knowledge, states)
        return tokens, misfit

    def _pass(self, knowledge: Knowledge, states: States) -> tuple[Tokens, float, float]:
        tokens, distance = decoded(knowledge, states, depth=max(1, *self._blocks))
        return tokens, distance, states.fit().misfit

    def control(self, knowledge: Knowledge) -> Knowledge:
        """Rows that no key leads to."""
        return replace(knowledge, traffic=unrelated_rows(knowledge.traffic))


@dataclass
class States:
    """The residual of a row, and what the rows that were read tell of its key.

    Attributes:
        blocks: after which it is looked at.
        permuted: whether the key is one that only permutes, up to signs.
        known: what is known of the key.
        learns: whether to fit the key again on the way.
    """

    blocks: list[int]
    permuted: bool = False
    known: Fit | None = None
    learns: bool = True
    _plain: list[Values] = field(default_factory=list)
    _keyed: list[Values] = field(default_factory=list)
    _fitted: int = 0
    sees_first = True

    def distances(self, hosted: Inside, at: int, tried: Inside) -> Values:
        """(C,) least distance under any key that does what is known, of the length."""
        keyed = hosted.states[self.blocks, at]
        lengths = np.linalg.norm(keyed, axis=-1, keepdims=True)
        keyed, plain = keyed / lengths, tried.states[self.blocks].transpose(1, 0, 2) / lengths
        far = least_distances(plain, keyed, self.known)
        if self.permuted and plain.shape[-1] == keyed.shape[-1]:
            gaps = np.sort(np.abs(plain), axis=-1) - np.sort(np.abs(keyed), axis=-1)
            far = np.maximum(far, np.linalg.norm(gaps, axis=(-2, -1)))
        relative: Values = far / np.sqrt(len(keyed))
        return relative

    def learn(self, hosted: Inside, at: int, base: Inside) -> None:
        """Notes the pairs of states; fits the key on them now and then."""
        self._keyed += [
            state / np.linalg.norm(state) for state in hosted.states[self.blocks, at]
        ]
        self._plain += [state / np.linalg.norm(state) for state in base.states[self.blocks, -1]]
        if self.learns and len(self._plain) >= self._fitted * _GROWTH:
            self.known, self._fitted = self.fit(), len(self._plain)

    def fit(self) -> Fit:
        """The rotation that fits all pairs best."""
        return Fit.of(np.array(self._plain), np.array(self._keyed))
