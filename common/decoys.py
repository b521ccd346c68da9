"""Decoys: requests that run beside the real one, so that a cloud reads k texts, not one.

A decoy hides as well as its text is plausible: with independent tokens (`unigram`) or pairs
(`bigram`) the hosted model itself says which text is the real one. `text` takes whole texts
that people wrote, and is as good as they are like the real questions.

Law: a decoy has as many tokens as the real question, and begins like the texts do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from random import Random

import numpy as np
from numpy.typing import NDArray

from triparty.common.errors import SettingsError


class DecoyKind(StrEnum):
    """What decoys are made of."""

    TEXT = "text"
    BIGRAM = "bigram"
    UNIGRAM = "unigram"


@dataclass(frozen=True, eq=False)
class DecoyTexts:
    """Texts from which decoys are drawn.

    Attributes:
        texts: (T,) token ids each, at least one of two tokens.
        kind: what decoys are made of.
    """

    texts: Sequence[NDArray[np.int64]]
    kind: DecoyKind = DecoyKind.TEXT

    def __post_init__(self) -> None:
        """Refuses texts that nothing can be drawn from."""
        if not any(len(text) > 1 for text in self.texts):
            raise SettingsError("decoys are drawn from texts of two tokens or more; got none")

    def draw(self, length: int, random: Random) -> list[int]:
        """The token ids of a decoy.

        Args:
            length: how many.
            random: the draws; `secrets.SystemRandom()` in use, seeded in tests alone.
        """
        if self.kind is DecoyKind.TEXT:
            return self._text(length, random)
        places = self._places()
        text, at = self._beginning(random)
        drawn = [int(self.texts[text][at])]
        while len(drawn) < length:
            if self.kind is DecoyKind.UNIGRAM:
                text, at = random.choice(places[None])
            else:
                after = places.get(drawn[-1])
                text, at = random.choice(after) if after else self._beginning(random)
            drawn.append(int(self.texts[text][at]))
        return drawn

    def _text(self, length: int, random: Random) -> list[int]:
        """A text of this length if there is one, else the beginning of a longer one."""
        exact = [text for text in self.texts if len(text) == length]
        longer = exact or [text for text in self.texts if len(text) > length]
        if longer:
            return [int(token) for token in random.choice(longer)[:length]]
        joined = [int(token) for token in random.choice(self.texts)]
        while len(joined) < length:
            joined += [int(token) for token in random.choice(self.texts)[1:]] or joined[-1:]
        return joined[:length]

    def _beginning(self, random: Random) -> tuple[int, int]:
        return random.choice([i for i, text in enumerate(self.texts) if len(text)]), 0

    def _places(self) -> dict[int | None, list[tuple[int, int]]]:
        """Where each token is followed by which; under None all but first tokens."""
        places: dict[int | None, list[tuple[int, int]]] = {None: []}
        for number, text in enumerate(self.texts):
            for at in range(1, len(text)):
                places[None].append((number, at))
                places.setdefault(int(text[at - 1]), []).append((number, at))
        return places
