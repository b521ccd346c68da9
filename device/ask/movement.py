"""Whether a question's verb speaks of coming, of going or of being there; pure."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

import numpy as np

from triparty.device.ask.grammar import FUNCTION_WORDS
from triparty.device.ask.mentions import Mention
from triparty.device.ask.vectors import Vectors
from triparty.device.ask.words import Word, these


class Movement(StrEnum):
    """What a verb speaks of."""

    COMING = "coming"
    GOING = "going"
    BEING = "being"


VERBS: dict[Movement, tuple[str, ...]] = {
    Movement.COMING: (
        "arrive",
        "arrived",
        "came",
        "came in",
        "enter",
        "entered",
        "went into",
        "show up",
        "turn up",
        "got to",
        "reach",
        "walk into",
        "drive into",
        "step into",
        "arrival",
        "visited",
    ),
    Movement.GOING: (
        "leave",
        "left",
        "went away",
        "gone",
        "went out",
        "drive off",
        "drove away",
        "exit",
        "departed",
        "walk out",
        "go home",
        "disappear",
        "departure",
    ),
    Movement.BEING: (
        "occupied",
        "busy",
        "in use",
        "used",
        "stay",
        "sitting",
        "standing",
        "working",
        "seen",
        "present",
        "parked",
        "empty",
        "free",
        "hang around",
    ),
}
_PARTICLES = these("into out off away up")


def predicate(words: Sequence[Word], taken: frozenset[int], found: Sequence[Mention]) -> str:
    """The words of a question that are of no closed class and mean no place, object or time.

    Args:
        words: of the question.
        taken: numbers of words that speak of time.
        found: what words mean.
    """
    inside = taken | {n for one in found for n in range(one.run.at, one.run.end)}
    return " ".join(
        word.text
        for n, word in enumerate(words)
        if n not in inside
        and not word.is_sign
        and (word.text not in FUNCTION_WORDS or word.text in _PARTICLES)
    )


def verbs() -> tuple[str, ...]:
    """All verbs, in the order of `movements`."""
    return tuple(verb for some in VERBS.values() for verb in some)


def movements(verb: Vectors, known: Vectors) -> dict[Movement, float]:
    """How alike a verb is to those of each kind: the mean of the two likest.

    Args:
        verb: (D,) of the predicate.
        known: (V, D) of `verbs()`.
    """
    alike, found, at = known @ verb, dict[Movement, float](), 0
    for movement, some in VERBS.items():
        found[movement] = float(np.sort(alike[at : at + len(some)])[-2:].mean())
        at += len(some)
    return found
