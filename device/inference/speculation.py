"""Speculative steps: guesses go along with the next token, and one reply judges them all.

The rule is *sample, then compare* (`generation.pieces`): at every place the token is drawn
from the model's own distribution as it would have been without a guess, by the same draw of
the same generator, and a guess only saves the round trip if it is that token. So an answer is
the very one that it would be without, whatever is guessed: greedy, or drawn with a seed.

A fixed guess x is kept with the probability p(x) that the model gives it, and what takes its
place is distributed as p without x: that is the rule of speculative sampling for such guesses
(Leviathan et al., "Fast Inference from Transformers via Speculative Decoding", 2023; Chen et
al., 2023), which keeps no more of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from triparty.device.inference.drafts import Draft, PromptLookup
from triparty.device.inference.traffic import Traffic

FIRST = 4
PATIENCE = 3
MOST_REST = 4


@dataclass(frozen=True)
class Pace:
    """How many tokens to guess next: more while they are right, none for a while when not.

    So wrong guesses stay few: after `PATIENCE` misses in a row rests begin, soon of `MOST_REST`
    steps between two guesses of one token.

    Attributes:
        most: tokens to guess at most.
        length: tokens to guess after the rest.
        misses: steps in a row in which the first guess was wrong.
        rest: steps without guesses that are still to come.
    """

    most: int
    length: int
    misses: int = 0
    rest: int = 0

    @property
    def count(self) -> int:
        """Tokens to guess in the next step."""
        return 0 if self.rest else self.length

    def after(self, proposed: int, accepted: int) -> Pace:
        """The pace after a step, of whose guesses the first `accepted` were right."""
        if not proposed:
            return replace(self, rest=max(0, self.rest - 1))
        if accepted:
            wanted = 2 * self.length if accepted == proposed else accepted + 1
            return Pace(self.most, min(self.most, wanted))
        misses = self.misses + 1
        rest = min(MOST_REST, 2 ** max(0, misses - PATIENCE) - 1)
        return Pace(self.most, max(1, self.length // 2), misses, rest)


class Speculation:
    """The guesses of one answer.

    Args:
        most: tokens to guess in a step at most; 0 guesses nothing.
        vocabulary: number of tokens that the model knows.
        draft: guesses; None looks the text up in itself.
        traffic: is told how many were guessed, and how many were wrong.
    """

    def __init__(
        self,
        most: int = 0,
        *,
        vocabulary: int = 0,
        draft: Draft | None = None,
        traffic: Traffic | None = None,
    ) -> None:
        """Nothing is guessed yet."""
        self._pace = Pace(most, min(most, FIRST))
        self._vocabulary = vocabulary
        self._draft = draft or PromptLookup()
        self._traffic = traffic or Traffic()

    def proposals(self, ids: Sequence[int], *, room: int) -> list[int]:
        """Guesses of the tokens that follow, up to the first one that is no token.

        Args:
            ids: (T,) of question and answer so far.
            room: most tokens that there may be.
        """
        count = min(self._pace.count, room)
        if count < 1:
            return []
        guessed: list[int] = []
        for token in self._draft.propose(ids, count)[:count]:
            if not 0 <= token < self._vocabulary:
                break
            guessed.append(int(token))
        return guessed

    def judged(self, proposed: int, accepted: int) -> None:
        """Learns from a step, of whose guesses the first `accepted` were right."""
        self._pace = self._pace.after(proposed, accepted)
        self._traffic.guesses += proposed
        self._traffic.wrong_guesses += proposed - accepted
