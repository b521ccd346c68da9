"""Decoys: requests that run beside the real one, so that a cloud reads k texts, not one.

A decoy hides as well as its text is plausible: with independent tokens (`unigram`) or pairs
(`bigram`) the hosted model itself says which text is the real one. `text` takes whole texts
that people wrote, and is as good as they are like the real questions; each serves once, because
a text that comes again is a decoy to whoever remembers it.

Law: a decoy has as many tokens as the real question, and begins like the texts do.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from random import Random

import numpy as np
from numpy.typing import NDArray

from triparty.common.errors import SettingsError


class DecoyKind(StrEnum):
    """What decoys are made of."""

    TEXT = "text"
    BIGRAM = "bigram"
    UNIGRAM = "unigram"


def turns(streams: int, random: Random) -> list[int]:
    """The order (k,) in which k streams take their turns; each order is equally likely."""
    return random.sample(range(streams), streams)


@dataclass(frozen=True, eq=False)
class DecoyTexts:
    """Texts from which decoys are drawn.

    Attributes:
        texts: (T,) token ids each, at least one of two tokens.
        kind: what decoys are made of.
        spent: digests of the whole texts that served already; those that are drawn are added.
    """

    texts: Sequence[NDArray[np.int64]]
    kind: DecoyKind = DecoyKind.TEXT
    spent: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        """Refuses texts that nothing can be drawn from."""
        if not any(len(text) > 1 for text in self.texts):
            raise SettingsError("decoys are drawn from texts of two tokens or more; got none")

    def draw(self, length: int, random: Random) -> list[int]:
        """The token ids of a decoy.

        Args:
            length: how many.
            random: the draws; `secrets.SystemRandom()` in use, seeded in tests alone.

        Raises:
            SettingsError: no whole text that long is left.
        """
        if self.kind is DecoyKind.TEXT:
            return self._text(length, random)
        text, at = self._beginning(random)
        drawn = [int(self.texts[text][at])]
        while len(drawn) < length:
            if self.kind is DecoyKind.UNIGRAM:
                text, at = random.choice(self._places[None])
            else:
                after = self._places.get(drawn[-1])
                text, at = random.choice(after) if after else self._beginning(random)
            drawn.append(int(self.texts[text][at]))
        return drawn

    def _text(self, length: int, random: Random) -> list[int]:
        """A text of this length if there is one, else the beginning of a longer one."""
        fresh = [n for n, digest in enumerate(self._digests) if digest not in self.spent]
        exact = [n for n in fresh if len(self.texts[n]) == length]
        fitting = exact or [n for n in fresh if len(self.texts[n]) > length]
        if not fitting:
            raise SettingsError(
                f"none of the {len(fresh)} decoy texts that were not used yet has {length} "
                "tokens: add texts, as long as your questions"
            )
        chosen = random.choice(fitting)
        self.spent.add(self._digests[chosen])
        return [int(token) for token in self.texts[chosen][:length]]

    @cached_property
    def _digests(self) -> list[str]:
        return [hashlib.sha256(text.astype("<i8").tobytes()).hexdigest() for text in self.texts]

    def _beginning(self, random: Random) -> tuple[int, int]:
        return random.choice([i for i, text in enumerate(self.texts) if len(text)]), 0

    @cached_property
    def _places(self) -> dict[int | None, list[tuple[int, int]]]:
        """Where each token is followed by which; under None all but first tokens."""
        places: dict[int | None, list[tuple[int, int]]] = {None: []}
        for number, text in enumerate(self.texts):
            for at in range(1, len(text)):
                places[None].append((number, at))
                places.setdefault(int(text[at - 1]), []).append((number, at))
        return places
