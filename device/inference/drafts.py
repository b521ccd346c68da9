"""What may come next, guessed on the device: a draft proposes, the model decides.

A draft is never trusted: a wrong guess costs a row, and no answer changes by it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

LONGEST, SHORTEST = 3, 2


class Draft(Protocol):
    """Anything on this machine that guesses tokens; several answers may ask it at once."""

    def propose(self, ids: Sequence[int], count: int) -> Sequence[int]:
        """The tokens that may follow, as many as it has a guess for.

        Args:
            ids: (T,) of question and answer so far, T at least 1, in the tokenizer's order.
            count: most tokens that are wanted, at least 1; what is beyond is left out.
        """


@dataclass(frozen=True)
class PromptLookup:
    """Guesses that the text goes on as it did where it last ended in the same tokens.

    It needs no model, and is right where an answer repeats its question or itself (Saxena,
    "Prompt Lookup Decoding", 2023).

    Attributes:
        longest: tokens that are looked for; if they are nowhere else, one fewer.
        shortest: fewest that are looked for. What follows a single token is rarely what
            followed it before.
    """

    longest: int = LONGEST
    shortest: int = SHORTEST

    def propose(self, ids: Sequence[int], count: int) -> list[int]:
        """What followed the last tokens before; of several places the last one."""
        text = np.asarray(ids, np.int64)
        for size in range(min(self.longest, len(text) - 1), self.shortest - 1, -1):
            earlier = sliding_window_view(text[:-1], size)
            found = np.flatnonzero((earlier == text[-size:]).all(axis=1)) + size
            if len(found):
                whole = found[found + count <= len(text)]
                start = int(whole[-1] if len(whole) else found[0])
                followed: list[int] = text[start : start + count].tolist()
                return followed
        return []
