"""Which words of a question mean which place or object: by the likeness of their vectors; pure.

Every run of up to four words that a noun phrase can be is compared with what the site's places
and objects are called. The likest takes its words, then the next likest of the words that are
left. A place has to be likely enough, and clearly likelier than any other: if two are nearly
as likely, neither is taken, and both are told.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from triparty.device.ask.clocks import number
from triparty.device.ask.grammar import (
    AUXILIARIES,
    DETERMINERS,
    FUNCTION_WORDS,
    IDIOMS,
    JOINERS,
    NUMERALS,
    PERSONS,
    THINGS,
    WHERE_PREPOSITIONS,
)
from triparty.device.ask.vectors import Vectors
from triparty.device.ask.words import Word, these

LONGEST = 4
EVERYWHERE = ("the whole building", "the building", "anywhere", "everywhere", "the premises")
"""What the whole site is called."""
SAME = 2.0
"""The likeness of the same words: more than of any others."""
OTHERS_COUNT = 0.3
"""What the likeness to an owner's other phrases counts beside the likest."""
PERSON = "person"
"""What a pronoun for persons is compared as."""


@dataclass(frozen=True)
class Rules:
    """From when on words mean something.

    Attributes:
        place: least likeness of a place.
        thing: least likeness of an object.
        margin: by which a place must be likelier than another.
        spread: objects that are less likely than the likest by this at most are all meant.
    """

    place: float = 0.47
    thing: float = 0.5
    margin: float = 0.08
    spread: float = 0.15


@dataclass(frozen=True)
class Run:
    """Words that follow each other and may mean something.

    Attributes:
        at: number of the first.
        end: after the last.
        text: that is compared.
        as_place: whether a place may be called so here.
        as_thing: whether an object may be.
    """

    at: int
    end: int
    text: str
    as_place: bool
    as_thing: bool

    def overlaps(self, other: Run) -> bool:
        """Whether they have a word in common."""
        return self.at < other.end and other.at < self.end


@dataclass(frozen=True)
class Mention:
    """Words that mean places or objects.

    Attributes:
        run: the words.
        meant: numbers of the places, or of the objects; none: the whole site.
        is_place: whether they are places.
        likeness: of the likest.
        others: places that are nearly as likely, the likest included; empty: it is clear.
    """

    run: Run
    meant: tuple[int, ...]
    is_place: bool
    likeness: float
    others: tuple[int, ...] = ()


def runs(words: Sequence[Word], taken: frozenset[int]) -> list[Run]:
    """The runs of words that may mean a place or an object.

    Args:
        words: of the question.
        taken: numbers of words that speak of time.
    """
    idle = taken | _idioms(words)
    return [
        run
        for at in range(len(words))
        for end in range(at + 1, min(at + LONGEST, len(words)) + 1)
        if (run := _run(words, at, end, idle)) is not None
    ]


def _run(words: Sequence[Word], at: int, end: int, idle: frozenset[int]) -> Run | None:
    texts = [word.text for word in words[at:end]]
    if any(n in idle for n in range(at, end)) or any(w.is_sign for w in words[at:end]):
        return None
    if len(texts) == 1 and texts[0] in PERSONS:
        return Run(at, end, PERSON, as_place=False, as_thing=True)
    if texts[0] in FUNCTION_WORDS or texts[-1] in FUNCTION_WORDS:
        return None
    before = words[at - 1].text if at else ""
    is_where = _is_after_where(words, at)
    open_before = at == 0 or at - 1 in idle or words[at - 1].is_sign
    return Run(
        at,
        end,
        " ".join(texts),
        as_place=before in DETERMINERS - _ASKED | WHERE_PREPOSITIONS | JOINERS,
        as_thing=not is_where
        and (
            open_before
            or before in DETERMINERS | NUMERALS | JOINERS | AUXILIARIES | _BEFORE_THINGS
            or before.isdecimal()
        ),
    )


def _is_after_where(words: Sequence[Word], at: int) -> bool:
    """Whether what begins here is where something was: "in the garage"."""
    at -= bool(at) and words[at - 1].text in DETERMINERS
    return at > 0 and words[at - 1].text in _PLACE_BEGINS


_ASKED = frozenset(("which", "what"))


_BEFORE_THINGS = these("of there see saw seen with last first next only there's")


def _idioms(words: Sequence[Word]) -> frozenset[int]:
    texts = [word.text for word in words]
    return frozenset(
        n
        for at in range(len(texts))
        for idiom in IDIOMS
        if tuple(texts[at : at + len(idiom)]) == idiom
        for n in range(at, at + len(idiom))
    )


@dataclass(frozen=True)
class Known:
    """The site's words as vectors.

    Attributes:
        vectors: (P, D) of all phrases.
        owners: (P,) which place or object a phrase is of; the last one stands for all.
        phrases: (P,) in lower case.
    """

    vectors: Vectors
    owners: np.ndarray
    phrases: tuple[str, ...]

    def likeness(self, made: Vectors, texts: Sequence[str]) -> np.ndarray:
        """(N, O) of texts to each owner: cosines, and `SAME` if they are the same words."""
        same = np.array([[text == phrase for phrase in self.phrases] for text in texts])
        alike = np.where(same.reshape(len(texts), -1), SAME, made @ self.vectors.T)
        return self._by_owner(alike)

    def distinctness(self, made: Vectors, texts: Sequence[str]) -> np.ndarray:
        """(N, O) of texts to each owner, without what all phrases have in common.

        "Room" tells a meeting room from a garden, but not from a server room. An owner's other
        phrases count as well, for less.
        """
        middle = self.vectors.mean(axis=0)
        alike = _unit(made - middle) @ _unit(self.vectors - middle).T
        best = self._by_owner(alike)
        for owner in range(best.shape[1]):
            own = alike[:, self.owners == owner]
            best[:, owner] += OTHERS_COUNT * (own.sum(axis=1) - own.max(axis=1))
        same = self.likeness(made, texts) == SAME
        return np.where(same, SAME * len(self.phrases), best)

    def _by_owner(self, alike: np.ndarray) -> np.ndarray:
        found = np.full((len(alike), int(self.owners.max()) + 1), -1.0)
        for column, owner in enumerate(self.owners):
            found[:, owner] = np.maximum(found[:, owner], alike[:, column])
        return found


def _unit(rows: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.maximum(lengths, 1e-12))


def mentions(
    found: Sequence[Run],
    places: np.ndarray,
    distinct: np.ndarray,
    things: np.ndarray,
    rules: Rules,
) -> list[Mention]:
    """What runs mean, in the order of the words.

    Args:
        found: N runs.
        places: (N, P + 1) likeness to places; last to the whole site.
        distinct: (N, P + 1) the same without what places have in common: tells which.
        things: (N, T + 1) likeness to objects; the last counts for nothing.
        rules: from when on they mean something.
    """
    offers = list(_offers(found, places, distinct, things, rules))
    # The likest first; of equals the one of more words.
    offers.sort(key=lambda one: (-one.likeness, one.run.at - one.run.end, one.run.at))
    taken = list[Mention]()
    for offer in offers:
        if not any(offer.run.overlaps(other.run) for other in taken):
            taken.append(offer)
    return sorted(taken, key=lambda one: one.run.at)


def _offers(
    found: Sequence[Run],
    places: np.ndarray,
    distinct: np.ndarray,
    things: np.ndarray,
    rules: Rules,
) -> Iterator[Mention]:
    rows = zip(found, places, distinct, things[:, :-1], strict=True)
    for run, to_places, of_place, to_things in rows:
        place = float(to_places.max()) if run.as_place else -1.0
        thing = float(to_things.max(initial=-1.0)) if run.as_thing else -1.0
        if place >= rules.place and place >= thing:
            yield _place(run, place, of_place, rules.margin)
        elif thing >= rules.thing:
            near = np.flatnonzero(to_things >= thing - (thing < SAME) * rules.spread)
            yield Mention(run, tuple(map(int, near)), is_place=False, likeness=thing)


def _place(run: Run, likeness: float, of_place: np.ndarray, margin: float) -> Mention:
    best, whole = int(of_place.argmax()), len(of_place) - 1
    if best == whole:
        return Mention(run, (), is_place=True, likeness=likeness)
    near = tuple(map(int, np.flatnonzero(of_place[:whole] >= of_place[best] - margin)))
    return Mention(run, (best,), True, likeness, near if len(near) > 1 else ())


def unknown_places(
    words: Sequence[Word], taken: frozenset[int], found: Sequence[Mention]
) -> list[tuple[int, int]]:
    """Noun phrases after a preposition of place that nothing was made of: begin and end.

    Args:
        words: of the question.
        taken: numbers of words that speak of time.
        found: what words mean.
    """
    idle = taken | _idioms(words)
    known = {n for one in found for n in range(one.run.at, one.run.end)}
    unknown, at = list[tuple[int, int]](), 0
    while at < len(words):
        if at in idle or words[at].text not in _PLACE_BEGINS:
            at += 1
            continue
        begin = end = at + 1
        while end < len(words) and not (
            end in idle or words[end].is_sign or words[end].text in FUNCTION_WORDS - DETERMINERS
        ):
            end += 1
        nouns = [n for n in range(begin, end) if words[n].text not in DETERMINERS]
        if nouns and not known & set(nouns):
            unknown.append((nouns[0], end))
        at = max(end, at + 1)
    return unknown


_PLACE_BEGINS = these("in at inside into outside near through within behind beside")


def least_number(words: Sequence[Word], taken: frozenset[int], found: Sequence[Mention]) -> int:
    """How many there have to be: "two cars", "more than one person"; otherwise one.

    Args:
        words: of the question.
        taken: numbers of words that speak of time.
        found: what words mean.
    """
    texts = [word.text for word in words]
    for one in found:
        at = one.run.at - 1
        counted = None if one.is_place or at < 0 or at in taken else number(texts, at)
        if counted is not None and counted[1] == one.run.at:
            return counted[0] + (texts[max(0, at - 2) : at] == ["more", "than"])
        if not one.is_place and texts[max(0, at) : at + 1] == ["several"]:
            return 2
    return 1


def is_about_anything(words: Sequence[Word]) -> bool:
    """Whether a question asks for things of any kind."""
    return any(word.text in THINGS for word in words)
