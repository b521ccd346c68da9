"""A question as words, each with its place in the text."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass

_HALF_DAYS = re.compile(r"\b([ap])\.\s?m\b\.?", re.IGNORECASE)
_WORD = re.compile(
    r"\d{4}-\d{2}-\d{2}|\d{1,2}[:.]\d{2}(?!\d)|\d+(?:st|nd|rd|th)\b|\d+"
    r"|[^\W\d_]+(?:['\u2019][^\W\d_]+)?|[^\w\s]"
)


@dataclass(frozen=True)
class Word:
    """A word, a number or a sign.

    Attributes:
        text: in lower case, with straight apostrophes.
        at: where it begins in the tidied question.
        end: where it ends.
    """

    text: str
    at: int
    end: int

    @property
    def is_sign(self) -> bool:
        """Whether it is neither word nor number."""
        return not self.text[0].isalnum()


def tidied(question: str) -> str:
    """A question without what steers a terminal, on one line; `p.m.` is `pm`."""
    plain = "".join(c if c.isprintable() else " " for c in question)
    return _HALF_DAYS.sub(r"\1m", " ".join(plain.split()))


def words(text: str) -> list[Word]:
    """The words of a tidied text, in order."""
    return [
        Word(found.group().lower().replace("\u2019", "'"), found.start(), found.end())
        for found in _WORD.finditer(text)
    ]


def said(text: str, some: list[Word], taken: Collection[int]) -> str:
    """What a text says at some of its words.

    Args:
        text: tidied.
        some: its words.
        taken: numbers of words.
    """
    parts, before = list[str](), None
    for number in sorted(taken):
        word = some[number]
        if before is not None and number > before + 1:
            parts.append("...")
        parts.append(text[word.at : word.end])
        before = number
    return " ".join(parts)


def in_order(text: str) -> tuple[str, ...]:
    """The words of a list that is written as one text."""
    return tuple(text.split())


def these(text: str) -> frozenset[str]:
    """The words of a list that is written as one text, as a set."""
    return frozenset(text.split())
