"""`ask`: a question in plain words, answered from a site's events.

Time is read by a grammar on the device. Which place, which object and what is wanted is told by
the likeness of sentence vectors, which a protected model on the cloud makes of keyed rows; the
events are looked through on the device and never leave it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from triparty.common.errors import RequestError, UnclearError
from triparty.device.ask import mentions as meaning
from triparty.device.ask.answer import answered
from triparty.device.ask.coverage import Watched
from triparty.device.ask.finding import Finding, Value, value
from triparty.device.ask.intent import Intent, allowed, masked, prototypes, wanted
from triparty.device.ask.interpretation import Interpretation, Reading
from triparty.device.ask.mentions import Mention, Rules
from triparty.device.ask.movement import movements, predicate, verbs
from triparty.device.ask.phrase import Writer, phrased, told
from triparty.device.ask.places import Place, Site
from triparty.device.ask.times import NOW_S, Span, spoken, today
from triparty.device.ask.vectors import Embedder, KeptVectors, Vectors
from triparty.device.ask.words import Word, said, tidied, words
from triparty.device.events.event import Event, Events

LONGEST = 400
"""Characters of a question."""


@dataclass(frozen=True)
class Sent:
    """What left the device for a question.

    Attributes:
        model: that made the vectors.
        texts: parts of the question that were turned into vectors; empty if nothing left.
        site_texts: how many names and descriptions of the site, and questions that everybody
            has, were turned into vectors beside: those that were not kept from before.
        facts: the answer, if a model was asked to phrase it.
    """

    model: str
    texts: tuple[str, ...] = ()
    site_texts: int = 0
    facts: str | None = None


@dataclass(frozen=True)
class Answer:
    """The answer to a question.

    Attributes:
        question: as it was read: on one line.
        text: the answer in plain sentences.
        finding: the same in numbers and times.
        interpretation: what the question was taken to mean.
        confidence: from 0 to 1: how sure the reading of place, object and intent is, times the
            share of time that there is a record of. It is no probability.
        sent: what left the device.
    """

    question: str
    text: str
    finding: Finding
    interpretation: Interpretation
    confidence: float
    sent: Sent

    @property
    def value(self) -> Value:
        """The one thing that was asked for; None if there is none, or no record of it.

        Whether; how many; when, in seconds since 1970; how long, in seconds; which stretches;
        which places.
        """
        return value(self.interpretation.intent, self.finding)

    @property
    def evidence(self) -> tuple[Event, ...]:
        """The events that the answer rests on, in order."""
        return self.finding.evidence


class Resolver:
    """Finds out what a question means at one site.

    Args:
        site: its places, objects and time zone.
        embedder: makes the vectors of a question.
        kept: makes and keeps those of the site's own words; None keeps them in memory.
        rules: from when on words mean something.
        is_local: whether nothing leaves the device.
    """

    def __init__(
        self,
        site: Site,
        embedder: Embedder,
        kept: KeptVectors | None = None,
        *,
        rules: Rules | None = None,
        is_local: bool = False,
    ) -> None:
        """Makes no vectors yet."""
        self.site = site
        self._embedder, self._rules = embedder, rules or Rules()
        self._kept = kept or KeptVectors(embedder)
        self._is_local = is_local

    def resolve(self, question: str, now: float) -> tuple[Interpretation, Sent]:
        """What a question means, and what was sent to find out.

        Args:
            question: tidied.
            now: in seconds since 1970.

        Raises:
            TimeError: its time was not understood.
            UnclearError: its place was not.
            TransportError: the cloud was not reached.
        """
        kept_before = self._kept.made
        found = words(question)
        when = spoken(found, now, self.site.zone)
        taken = when.words if when is not None else frozenset()
        runs = meaning.runs(found, taken)
        places, things = self._known()
        texts = tuple(run.text for run in runs)
        made = self._embedder(texts) if texts else places.vectors[:0]
        meant = meaning.mentions(
            runs,
            places.likeness(made, texts),
            places.distinctness(made, texts),
            things.likeness(made, texts),
            self._rules,
        )
        self._refuse_unclear(question, found, taken, meant)
        plain = masked(found, taken, meant)
        intents = allowed(found, taken, meant)
        verb = predicate(found, taken, meant)
        vectors = self._embedder((plain, verb) if verb else (plain,))
        moves = movements(vectors[1], self._kept(verbs())) if verb else {}
        asking = self._kept([text for _, text in prototypes()])
        intent, lead = wanted(vectors[0], asking, intents, moves)
        span = when.span if when is not None else _unsaid(intent, found, now, self.site)
        where = _places(meant, self.site.places)
        interpretation = Interpretation(
            intent,
            lead,
            span,
            said_when=when is not None,
            places=where,
            labels=self._labels(found, meant),
            least=meaning.least_number(found, taken, meant),
            readings=tuple(self._reading(question, found, one) for one in meant),
        )
        if self._is_local:
            return interpretation, Sent(self._embedder.name)
        sent = tuple(dict.fromkeys((*texts, plain, verb) if verb else (*texts, plain)))
        return interpretation, Sent(self._embedder.name, sent, self._kept.made - kept_before)

    def _known(self) -> tuple[meaning.Known, meaning.Known]:
        """The site's words as vectors: of places, and of objects."""
        places = [(n, p) for n, place in enumerate(self.site.places) for p in place.phrases]
        places += [(len(self.site.places), phrase) for phrase in meaning.EVERYWHERE]
        things = [(n, p) for n, thing in enumerate(self.site.things) for p in thing.phrases]
        things.append((len(self.site.things), "something"))
        made = self._kept([text for _, text in (*places, *things)])
        return (
            _known(places, made[: len(places)]),
            _known(things, made[len(places) :]),
        )

    def _refuse_unclear(
        self,
        question: str,
        found: Sequence[Word],
        taken: frozenset[int],
        meant: Sequence[Mention],
    ) -> None:
        for one in meant:
            names = self._candidates(one) if one.is_place else ()
            if len(names) > 1:
                asked = said(question, list(found), range(one.run.at, one.run.end))
                raise UnclearError(
                    f"'{asked}' could mean {' or '.join(names)}: name one", candidates=names
                )
        for begin, end in meaning.unknown_places(found, taken, meant):
            asked = said(question, list(found), range(begin, end))
            names = tuple(place.name for place in self.site.places)
            raise UnclearError(
                f"I do not know which place '{asked}' is; there are: {', '.join(names)}",
                candidates=names,
            )

    def _candidates(self, one: Mention) -> tuple[str, ...]:
        """The places that may be meant; a camera stands for its own zones."""
        places = [self.site.places[n] for n in one.others or self._of_that_word(one)]
        whole = {place.camera for place in places if place.zone is None}
        return tuple(
            place.name for place in places if place.zone is None or place.camera not in whole
        )

    def _of_that_word(self, one: Mention) -> list[int]:
        """The places whose names have these words among others, if none is just so called."""
        asked = set(one.run.text.split())
        names = [set(place.phrases[0].lower().split()) for place in self.site.places]
        return [] if asked in names else [n for n, name in enumerate(names) if asked < name]

    def _labels(self, found: Sequence[Word], meant: Sequence[Mention]) -> tuple[str, ...]:
        numbers = [n for one in meant if not one.is_place for n in one.meant]
        if meaning.is_about_anything(found) and not numbers:
            return ()
        return tuple(dict.fromkeys(self.site.things[n].label for n in numbers))

    def _reading(self, question: str, found: Sequence[Word], one: Mention) -> Reading:
        if one.is_place:
            names = [self.site.places[n].name for n in one.meant] or ["all cameras"]
        else:
            names = [self.site.things[n].label for n in one.meant]
        text = said(question, list(found), range(one.run.at, one.run.end))
        return Reading(text, " or ".join(names), min(1.0, one.likeness))


def ask(
    question: str,
    events: Events,
    resolver: Resolver,
    now: float,
    *,
    watched: Watched | None = None,
    writer: Writer | None = None,
) -> Answer:
    """Answers a question from a site's events.

    Args:
        question: in plain English; it is data, and does nothing but be compared.
        events: of the site.
        resolver: finds out what it means.
        now: in seconds since 1970.
        watched: knows when cameras were looked at; None: as far as events tell.
        writer: a model that phrases the facts, and gets them; None: templates.

    Raises:
        RequestError: no question, or one that is too long.
        TimeError: its time was not understood, or is still to come.
        UnclearError: its place is not known, or could be several; with the candidates.
        TransportError: the cloud was not reached.
    """
    if len(question) > LONGEST:
        raise RequestError(
            f"a question has at most {LONGEST} characters, got {len(question)}: ask shorter"
        )
    asked = tidied(question)
    if not any(word.text[0].isalnum() for word in words(asked)):
        raise RequestError("the question is empty: ask something")
    interpretation, sent = resolver.resolve(asked, now)
    finding = answered(interpretation, events, resolver.site, watched=watched)
    text = told(interpretation, finding, resolver.site.zone)
    if writer is not None:
        sent = replace(sent, facts=text)
        text = phrased(text, writer)
    return Answer(
        question=asked,
        text=text,
        finding=finding,
        interpretation=interpretation,
        confidence=_confidence(interpretation, finding),
        sent=sent,
    )


def _known(owned: Sequence[tuple[int, str]], made: Vectors) -> meaning.Known:
    owners = np.array([owner for owner, _ in owned])
    return meaning.Known(made, owners, tuple(text.lower() for _, text in owned))


def _places(meant: Sequence[Mention], known: Sequence[Place]) -> tuple[Place, ...]:
    if any(one.is_place and not one.meant for one in meant):
        return ()
    numbers = [n for one in meant if one.is_place for n in one.meant]
    return tuple(known[n] for n in dict.fromkeys(numbers))


_OF_NOW = (Intent.PRESENT, Intent.VACANT, Intent.HOW_MANY, Intent.WHERE)


def _unsaid(intent: Intent, found: Sequence[Word], now: float, site: Site) -> Span:
    """When a question is about that does not say: now, today, or ever."""
    texts = {word.text for word in found}
    is_present = texts & {"is", "are", "isn't", "aren't"} and not texts & {"was", "were", "did"}
    if is_present and intent in _OF_NOW:
        return Span(now - NOW_S, now, is_now=True)
    if intent in (Intent.LAST_SEEN, Intent.LAST_ARRIVAL):
        return Span(0.0, now)
    return today(now, site.zone)


def _confidence(asked: Interpretation, found: Finding) -> float:
    likeness = min((one.likeness for one in asked.readings), default=1.0)
    intent = min(1.0, 0.6 + 4.0 * asked.lead)
    return round(max(0.0, min(likeness, intent)) * found.covered, 3)
