"""What a question wants to know: by the likeness to questions that ask for the same; pure.

The question is compared without its time, and with its place and object exchanged for one word
each, so that only what is asked counts. What a question begins with ("how many", "when") leaves
only some of the answers open.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum

import numpy as np

from triparty.device.ask.grammar import ASKING, AUXILIARIES, FUNCTION_WORDS
from triparty.device.ask.mentions import Mention
from triparty.device.ask.movement import Movement
from triparty.device.ask.vectors import Vectors
from triparty.device.ask.words import Word, these

PLACE, THING = "room", "person"
VERB_COUNTS = 0.4
"""What the verb's own likeness counts beside the whole question's."""


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
        "has the room been occupied",
        "was any person around in the room",
        "did anyone hang around in the room",
        "was there any person to be seen in the room",
        "did you notice a person in the room",
        "has somebody been using the room",
        "was somebody working in the room",
        "were people sitting in the room",
        "was a person standing in the room",
        "is the room taken",
        "can you see anyone in the room",
        "is the person still in the room",
        "was a person staying in the room",
        "did anyone spend time in the room",
    ),
    Intent.VACANT: (
        "was the room empty",
        "was nobody in the room",
        "is the room free",
        "was there no one in the room",
        "was the room unoccupied",
        "was the room deserted",
        "was the room free of anybody",
        "did the room stay empty",
        "is the room available",
        "was the room vacant",
        "was the room unused",
        "has nobody been in the room",
        "were there no people in the room",
        "was the room abandoned",
        "did the room have no visitors",
        "was the room free of people",
        "did nobody use the room",
        "was there nobody around",
        "did no one enter the room",
    ),
    Intent.CAME: (
        "did anybody enter the room",
        "did a person come into the room",
        "did someone walk into the room",
        "did a person arrive at the room",
        "has anyone gone into the room",
        "did somebody step into the room",
        "has a person shown up at the room",
        "did any person come by the room",
        "did a person drive into the room",
        "did a person turn up",
        "has a person come to the room",
        "did a person get to the room",
        "did a person go to the room",
        "did a person visit the room",
    ),
    Intent.WENT: (
        "did anybody leave the room",
        "did a person go out of the room",
        "did someone walk out of the room",
        "has the person left the room",
        "did a person drive off",
        "did a person exit the room",
        "did somebody depart from the room",
        "did the person drive away from the room",
        "has everybody gone from the room",
        "did everybody go home",
        "is the person gone from the room",
    ),
    Intent.HOW_MANY: (
        "how many people were in the room",
        "how many persons were there at once",
        "what was the largest number of people in the room at the same time",
        "how crowded was the room",
        "how many people were in the room at most",
        "number of people present in the room",
        "how many people have been in the room together",
        "how many people were sitting in the room",
        "how many people is the maximum in the room",
        "what was the peak number of people in the room",
        "how full was the room",
        "how many people are there",
        "how many people did you see in the room",
        "how many people gathered in the room",
    ),
    Intent.ARRIVALS: (
        "how many people entered the room",
        "how many times did somebody come into the room",
        "how often did a person arrive",
        "how many persons came",
        "how many visitors did the room have",
        "how often was the room used",
        "how many people walked into the room",
        "how many people came by the room",
        "how many people arrived at the room",
        "how many person drove into the room",
        "how many times was the room visited",
        "how often did anyone go to the room",
        "how many people showed up in the room",
        "how many person deliveries were there",
        "how often was a person in the room",
        "how many times did a person come",
        "how many people got to the room",
        "how many people turned up",
        "how many people dropped by",
        "how many people went into the room",
        "how many persons drove in",
    ),
    Intent.DEPARTURES: (
        "how many people left the room",
        "how often did somebody leave the room",
        "how many persons went away",
        "how many people went out of the room",
        "how many people walked out of the room",
        "how many person drove off",
        "how many times did someone leave the room",
        "how many people departed",
        "how many people exited the room",
    ),
    Intent.FIRST_ARRIVAL: (
        "when did the first person arrive in the room",
        "when did somebody first come into the room",
        "when was a person first seen in the room",
        "when did the room begin to be used",
        "what time did a person get to the room",
        "who came first into the room",
        "when did a person arrive",
        "when did the first person show up in the room",
        "when did someone enter the room for the first time",
        "what time did the person reach the room",
        "when did a person turn up",
        "when did the earliest person come into the room",
        "when did the person drive into the room",
        "when did the person come to the room",
        "from when on was somebody in the room",
        "when did people start to use the room",
        "when did the person show up",
    ),
    Intent.LAST_ARRIVAL: (
        "when did the last person come into the room",
        "when did somebody last enter the room",
        "when did the most recent person arrive",
        "what was the latest arrival of a person in the room",
        "when did the last visitor come to the room",
        "when was the room entered for the last time",
        "when did the final person arrive",
        "when did someone come in most recently",
    ),
    Intent.FIRST_DEPARTURE: (
        "when did the first person leave the room",
        "when did somebody first go out of the room",
        "when did the first one go out of the room",
        "when did the first visitor leave the room",
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
        "when did you last see a person in the room",
        "when was the room last used",
        "when did the final person leave the room",
        "when did the last one go",
        "what time did the person depart",
        "when did the person go away from the room",
        "when was the room vacated",
        "when did the person disappear from the room",
        "what time did the person drive away",
        "when did all of them leave the room",
        "when did the room get empty",
        "when did somebody go out of the room last",
        "until when was somebody in the room",
        "when did the person move out of the room",
    ),
    Intent.WHEN: (
        "when was somebody in the room",
        "at what times was a person there",
        "when was the room occupied",
        "between when and when was the room in use",
        "what times was the room used",
        "when was anyone in the room",
        "when were people in the room",
        "when was a person in the room",
        "when was the room busy",
        "when did people use the room",
        "at which time was the person in the room",
    ),
    Intent.HOW_LONG: (
        "how long was somebody in the room",
        "for how long was the room occupied",
        "how much time did a person spend in the room",
        "how many minutes was the room in use",
        "how long did the person stay",
        "what was the duration of the visit",
        "how long did people stay in the room",
        "how long was the room in use",
        "what was the time that the person stayed in the room",
        "how long did the person spend in the room",
        "how long did it take the person to leave the room",
    ),
    Intent.WHERE: (
        "where was the person",
        "which camera saw a person",
        "in which room was somebody",
        "where have you seen a person",
        "which rooms were used",
        "what place did the person go to",
        "where did the person go",
        "where could a person be found",
        "which rooms had people in them",
        "which room was occupied",
        "where has the person been",
        "in what place did the person turn up",
        "where did you spot a person",
        "who saw the person",
    ),
    Intent.EVENTS: (
        "what happened in the room",
        "list the events of the room",
        "show me what was recorded",
        "what went on in the room",
        "give me everything that happened",
        "tell me about the activity in the room",
        "what did the camera in the room record",
        "summarise the activity in the room",
        "list all visits to the room",
        "what has been happening in the room",
        "describe what happened in the room",
        "give me a summary of the room",
    ),
    Intent.UNUSUAL: (
        "did anything unusual happen in the room",
        "was there anything strange",
        "were there any anomalies",
        "was anything out of the ordinary",
        "was something wrong in the room",
        "was anything suspicious seen in the room",
        "did something weird go on in the room",
        "were there any alarms",
        "any incidents in the room",
    ),
}
"""Questions that everybody has, by what they want to know."""

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
    (("who",), (Intent.PRESENT, Intent.CAME, Intent.WENT)),
)

_BEGINNING_WORDS = {beginning[0] for beginning, _ in _BEGINNINGS}


def allowed(
    words: Sequence[Word], taken: frozenset[int], found: Sequence[Mention] = ()
) -> tuple[Intent, ...]:
    """What a question may want to know, by its closed-class words and how it begins.

    Args:
        words: of the question.
        taken: numbers of words that speak of time.
        found: what words mean.
    """
    some = [(n, w.text) for n, w in enumerate(words) if n not in taken and not w.is_sign]
    begin = next((n for n, (_, text) in enumerate(some) if text not in ASKING), 0)
    asked_whether = {"if", "whether"} & {text for _, text in some[:begin]}
    if (some[begin : begin + 1] or [(0, "")])[0][1] in _BEGINNING_WORDS:
        some = some[begin:]
    texts = [text for _, text in some]
    inside = {n for one in found for n in range(one.run.at, one.run.end)}
    has_verb = any(n not in inside and text not in FUNCTION_WORDS for n, text in some)
    return _narrowed(_begun(texts, asked_whether=bool(asked_whether)), texts, has_verb)


def _begun(texts: Sequence[str], *, asked_whether: bool) -> tuple[Intent, ...]:
    """By how a question begins."""
    if asked_whether:
        return _YES_OR_NO
    if texts[:1] == ["who"] and set(texts) & (_FIRST | _LAST):
        return _TIMES
    for beginning, intents in _BEGINNINGS:
        if tuple(texts[: len(beginning)]) == beginning:
            return intents
    return _YES_OR_NO if texts and texts[0] in AUXILIARIES else tuple(Intent)


def _narrowed(
    intents: tuple[Intent, ...], texts: Sequence[str], has_verb: bool
) -> tuple[Intent, ...]:
    """By words for first, last and no; and what was, if no verb says what happened."""
    left = intents
    if set(left) <= {*_YES_OR_NO, *_TIMES} and set(texts) & _NEGATIVES:
        left = (Intent.VACANT,)
    if set(left) & set(_TIMES) and Intent.EVENTS not in left:
        is_first, is_last = set(texts) & _FIRST, set(texts) & _LAST
        if is_first or is_last:
            left = tuple(one for one in left if one in (_FIRSTS if is_first else _LASTS))
    if not has_verb:
        left = tuple(one for one in left if one not in _MOVING)
    return left or intents


_NEGATIVES = these("nobody nothing none no neither not without")
_FIRST = these("first earliest begin")
_LAST = these("last latest final finally recent recently everyone everybody all")
_FIRSTS = (Intent.FIRST_ARRIVAL, Intent.FIRST_DEPARTURE)
_LASTS = (Intent.LAST_ARRIVAL, Intent.LAST_SEEN)
_MOVING = (Intent.CAME, Intent.WENT, Intent.ARRIVALS, Intent.DEPARTURES, Intent.LAST_ARRIVAL)


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
    question: Vectors,
    known: Vectors,
    intents: Sequence[Intent],
    movement: Mapping[Movement, float],
) -> tuple[Intent, float]:
    """What a question wants to know, and how much likelier that is than anything else.

    Args:
        question: (D,) of the masked question.
        known: (P, D) of the prototypes.
        intents: that may be.
        movement: what its verb speaks of; empty: it has none.
    """
    owners = [intent for intent, _ in prototypes()]
    alike = known @ question
    scores = np.array(
        [
            np.sort([a for a, owner in zip(alike, owners, strict=True) if owner is one])[
                -2:
            ].mean()
            + VERB_COUNTS * _moves(one, movement)
            for one in intents
        ]
    )
    best = int(scores.argmax())
    others = np.delete(scores, best)
    lead = float(scores[best] - others.max()) if len(others) else 1.0
    return intents[best], lead


def _moves(intent: Intent, movement: Mapping[Movement, float]) -> float:
    """How well a verb fits what is wanted; what no verb speaks of is nearly as good."""
    if not movement:
        return 0.0
    fitting = [movement[one] for one in _MOVEMENTS.get(intent, ())]
    return max(fitting) if fitting else 0.95 * max(movement.values())


_MOVEMENTS: dict[Intent, tuple[Movement, ...]] = {
    Intent.PRESENT: (Movement.BEING,),
    Intent.VACANT: (Movement.BEING,),
    Intent.HOW_MANY: (Movement.BEING,),
    Intent.WHEN: (Movement.BEING,),
    Intent.CAME: (Movement.COMING,),
    Intent.ARRIVALS: (Movement.COMING,),
    Intent.FIRST_ARRIVAL: (Movement.COMING,),
    Intent.LAST_ARRIVAL: (Movement.COMING,),
    Intent.WENT: (Movement.GOING,),
    Intent.DEPARTURES: (Movement.GOING,),
    Intent.FIRST_DEPARTURE: (Movement.GOING,),
    Intent.LAST_SEEN: (Movement.GOING, Movement.BEING),
}
