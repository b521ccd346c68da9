"""Closed classes of English words: those that a language has few of, and no new ones."""

from __future__ import annotations

from triparty.device.ask.words import these

DETERMINERS = these(
    "a an the any some no my our your their its this that these those each "
    "every all both another other either neither which what"
)
NUMERALS = these("one two three four five six seven eight nine ten many more several")
PERSONS = these(
    "anybody anyone somebody someone nobody everybody everyone who whom people they"
)
"""Pronouns, and the one noun that serves as one, that stand for persons."""
THINGS = frozenset(["anything", "something", "nothing", "everything"])
AUXILIARIES = these(
    "was were is are am been being be did does do done has have had having "
    "could can will would shall should may might must wasn't weren't isn't "
    "aren't didn't doesn't don't hasn't haven't hadn't"
)
WHERE_PREPOSITIONS = these(
    "in at on inside into onto outside near by through from to within "
    "around past behind beside along across under over towards toward of "
    "before"
)
JOINERS = frozenset(["and", "or", "nor"])
FUNCTION_WORDS = (
    DETERMINERS
    | NUMERALS
    | PERSONS
    | THINGS
    | AUXILIARIES
    | WHERE_PREPOSITIONS
    | JOINERS
    | these(
        "with without for during after since until till between about against "
        "than then so but if because as while when where why how whose it he "
        "she we you i me us him her them there here not n't yes ever never "
        "still yet already only just also too very much most less least few "
        "first last next again once twice ago up down out off away else please"
    )
)
ASKING = these(
    "please hey hi hello and so now i i'd i'm me we us you would could can "
    "like love want need wonder wondering to know tell show say check see "
    "find out look if whether do did remember exactly"
)
"""What may stand before the question itself: "can you tell me when ..."."""
IDIOMS = (
    ("at", "all"),
    ("at", "once"),
    ("at", "any", "time"),
    ("at", "any", "point"),
    ("at", "some", "point"),
    ("at", "one", "time"),
    ("at", "the", "same", "time"),
    ("at", "a", "time"),
    ("at", "most"),
    ("at", "least"),
    ("at", "what", "time"),
    ("at", "which", "time"),
    ("at", "what", "times"),
    ("in", "total"),
    ("in", "all"),
    ("in", "use"),
    ("in", "there"),
    ("in", "here"),
    ("in", "it"),
    ("in", "a", "row"),
    ("in", "that", "time"),
    ("in", "which"),
    ("in", "between"),
    ("by", "any", "chance"),
    ("on", "their", "own"),
    ("of", "the", "day"),
)
"""Phrases with a preposition that name no place."""
