"""What a question was taken to mean."""

from __future__ import annotations

from dataclasses import dataclass

from triparty.device.ask.intent import Intent
from triparty.device.ask.places import Place
from triparty.device.ask.times import Span


@dataclass(frozen=True)
class Reading:
    """Words and what they were taken for.

    Attributes:
        words: of the question.
        meant: what they were taken for.
        likeness: from 0 to 1, of the vectors.
    """

    words: str
    meant: str
    likeness: float


@dataclass(frozen=True)
class Interpretation:
    """What a question was taken to mean.

    Attributes:
        intent: what it wants to know.
        lead: by how much that is likelier than anything else.
        span: when.
        said_when: whether the question said when.
        places: where; empty: at the whole site.
        labels: of which objects; empty: of any.
        readings: of words as places and objects.
        least: how many there have to be at once, for a question whether there were.
    """

    intent: Intent
    lead: float
    span: Span
    said_when: bool
    places: tuple[Place, ...]
    labels: tuple[str, ...]
    readings: tuple[Reading, ...]
    least: int = 1
