"""What a question wants to know: by the likeness to questions that ask for the same; pure.

The question is compared without its time, and with its place and object exchanged for one word
each, so that only what is asked counts. What a question begins with ("how many", "when") leaves
only some of the answers open.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

import numpy as np

from triparty.device.ask.grammar import ASKING, AUXILIARIES, FUNCTION_WORDS
from triparty.device.ask.mentions import Mention
from triparty.device.ask.vectors import Vectors
from triparty.device.ask.words import Word

PLACE, THING = "room", "person"


class Intent(StrEnum):
    """What is wanted."""

    PRESENT = "was there"
    VACANT = "was it empty"
    CAME = "did one come"
    WENT = "did one leave"
    HOW_MANY = "how many at once"
    ARRIVALS = "how many came"
    DEPARTURES = "how many left"
    FIRST_ARRIVAL = "when did the first come"
    LAST_ARRIVAL = "when did the last come"
    FIRST_DEPARTURE = "when did the first leave"
    LAST_SEEN = "when was the last seen"
    WHEN = "when was there"
    HOW_LONG = "how long"
    WHERE = "where"
    EVENTS = "what happened"
    UNUSUAL = "was anything unusual"


PROTOTYPES: dict[Intent, tuple[str, ...]] = {
    Intent.PRESENT: (
        "was anybody in the room",
        "was there a person in the room",
        "is somebody in the room",
        "did you see a person in the room",
        "was the room occupied",
        "was the room in use",
        "has anyone been to the room",
        "who was in the room",
        "did anyone use the room",
        "could you spot a person",
    ),
    Intent.VACANT: (
        "was the room empty",
        "was nobody in the room",
        "is the room free",
        "was there no one in the room",
        "was the room unoccupied",
        "was the room deserted",
    ),
    Intent.CAME: (
        "did anybody enter the room",
        "did a person come into the room",
        "did someone walk into the room",
        "did a person arrive at the room",
        "has anyone gone into the room",
    ),
    Intent.WENT: (
        "did anybody leave the room",
        "did a person go out of the room",
        "did someone walk out of the room",
        "has the person left the room",
        "did a person drive off",
    ),
    Intent.HOW_MANY: (
        "how many people were in the room",
        "how many persons were there at once",
        "what was the largest number of people in the room at the same time",
        "how crowded was the room",
        "how many people were in the room at most",
        "number of people present in the room",
    ),
    Intent.ARRIVALS: (
        "how many people entered the room",
        "how many times did somebody come into the room",
        "how often did a person arrive",
        "how many persons came",
        "how many visitors did the room have",
        "how often was the room used",
    ),
    Intent.DEPARTURES: (
        "how many people left the room",
        "how often did somebody leave the room",
        "how many persons went away",
    ),
    Intent.FIRST_ARRIVAL: (
        "when did the first person arrive in the room",
        "when did somebody first come into the room",
        "when was a person first seen in the room",
        "when did the room begin to be used",
        "what time did a person get to the room",
        "who came first into the room",
        "when did a person arrive",
    ),
    Intent.LAST_ARRIVAL: (
        "when did the last person come into the room",
        "when did somebody last enter the room",
        "when did the most recent person arrive",
        "what was the latest arrival of a person in the room",
    ),
    Intent.FIRST_DEPARTURE: (
        "when did the first person leave the room",
        "when did somebody first go out of the room",
    ),
    Intent.LAST_SEEN: (
        "when was somebody last in the room",
        "when was a person last seen in the room",
        "when did the last person leave the room",
        "when did the room become empty",
        "when did the room become free",
        "when did everyone leave the room",
        "when was the last time that a person was there",
        "when did the person drive off",
        "when did everybody go home",
        "when did the person leave",
    ),
    Intent.WHEN: (
        "when was somebody in the room",
        "at what times was a person there",
        "when was the room occupied",
        "between when and when was the room in use",
        "what times was the room used",
    ),
    Intent.HOW_LONG: (
        "how long was somebody in the room",
        "for how long was the room occupied",
        "how much time did a person spend in the room",
        "how many minutes was the room in use",
        "how long did the person stay",
        "what was the duration of the visit",
    ),
    Intent.WHERE: (
        "where was the person",
        "which camera saw a person",
        "in which room was somebody",
        "where have you seen a person",
        "which rooms were used",
        "what place did the person go to",
    ),
    Intent.EVENTS: (
        "what happened in the room",
        "list the events of the room",
        "show me what was recorded",
        "what went on in the room",
        "give me everything that happened",
        "tell me about the activity in the room",
    ),
    Intent.UNUSUAL: (
        "did anything unusual happen in the room",
        "was there anything strange",
        "were there any anomalies",
        "was anything out of the ordinary",
        "was something wrong in the room",
    ),
}

_YES_OR_NO = (
    Intent.PRESENT,
    Intent.VACANT,
    Intent.CAME,
    Intent.WENT,
    Intent.UNUSUAL,
)
_TIMES = (
    Intent.FIRST_ARRIVAL,
    Intent.LAST_ARRIVAL,
    Intent.FIRST_DEPARTURE,
    Intent.LAST_SEEN,
    Intent.WHEN,
)
_BEGINNINGS: tuple[tuple[tuple[str, ...], tuple[Intent, ...]], ...] = (
    (("how", "many", "times"), (Intent.ARRIVALS, Intent.DEPARTURES)),
    (("how", "often"), (Intent.ARRIVALS, Intent.DEPARTURES)),
    (("how", "many", "minutes"), (Intent.HOW_LONG,)),
    (("how", "many", "hours"), (Intent.HOW_LONG,)),
    (("how", "many"), (Intent.HOW_MANY, Intent.ARRIVALS, Intent.DEPARTURES)),
    (("how", "long"), (Intent.HOW_LONG,)),
    (("how", "much", "time"), (Intent.HOW_LONG,)),
    (("what", "time"), _TIMES),
    (("at", "what", "time"), _TIMES),
    (("since", "when"), (Intent.LAST_ARRIVAL,)),
    (("when",), _TIMES),
    (("where",), (Intent.WHERE,)),
    (("which",), (Intent.WHERE,)),
    (("in", "which"), (Intent.WHERE,)),
    (("who",), (Intent.PRESENT, Intent.CAME, Intent.WENT, *_TIMES)),
)

_BEGINNING_WORDS = {beginning[:1] for beginning, _ in _BEGINNINGS}


def allowed(words: Sequence[Word], taken: frozenset[int]) -> tuple[Intent, ...]:
    """What a question may want to know by how it begins, after what it says of time.

    Args:
        words: of the question.
        taken: numbers of words that speak of time.
    """
    texts = [w.text for n, w in enumerate(words) if n not in taken and not w.is_sign]
    begin = next((n for n, text in enumerate(texts) if text not in ASKING), 0)
    if "if" in texts[:begin] or "whether" in texts[:begin]:
        return _YES_OR_NO
    if tuple(texts[begin : begin + 1]) in _BEGINNING_WORDS:
        texts = texts[begin:]
    for beginning, intents in _BEGINNINGS:
        if tuple(texts[: len(beginning)]) == beginning:
            return intents
    if texts and texts[0] in AUXILIARIES:
        return _YES_OR_NO
    return tuple(Intent)


def masked(words: Sequence[Word], taken: frozenset[int], found: Sequence[Mention]) -> str:
    """The question without its time, with one word for its places and one for its objects.

    Args:
        words: of the question.
        taken: numbers of words that speak of time.
        found: what words mean.
    """
    by_first = {one.run.at: one for one in found}
    inside = {n for one in found for n in range(one.run.at, one.run.end)}
    kept = list[str]()
    for number, word in enumerate(words):
        if number in by_first and (word.text not in FUNCTION_WORDS):
            kept.append(PLACE if by_first[number].is_place else THING)
        elif number in by_first or not (number in inside or number in taken or word.is_sign):
            kept.append(word.text)
    return " ".join(kept)


def prototypes() -> tuple[tuple[Intent, str], ...]:
    """All prototypes, each with what it asks for."""
    return tuple((intent, text) for intent, texts in PROTOTYPES.items() for text in texts)


def wanted(
    question: Vectors, known: Vectors, intents: Sequence[Intent]
) -> tuple[Intent, float]:
    """What a question wants to know, and how much likelier that is than anything else.

    Args:
        question: (D,) of the masked question.
        known: (P, D) of the prototypes.
        intents: that may be.
    """
    owners = [intent for intent, _ in prototypes()]
    alike = known @ question
    scores = np.array(
        [
            np.sort([a for a, owner in zip(alike, owners, strict=True) if owner == one])[-2:]
            @ (0.3, 0.7)
            for one in intents
        ]
    )
    best = int(scores.argmax())
    others = np.delete(scores, best)
    lead = float(scores[best] - others.max()) if len(others) else 1.0
    return intents[best], lead
