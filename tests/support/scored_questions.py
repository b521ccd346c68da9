"""How many questions of a known building are answered right."""

from __future__ import annotations

from collections.abc import Sequence

from made_building import Building

from triparty.common.errors import TripartyError
from triparty.device.ask.ask import Resolver, ask

TOLERANCE_S = 60.0
Expected = bool | int | float | tuple[str, ...]


def wrong(
    building: Building,
    questions: Sequence[tuple[str, Expected]],
    resolver: Resolver,
    now: float,
) -> list[str]:
    """The questions that are answered otherwise, each with what was said."""
    found = list[str]()
    for question, expected in questions:
        try:
            answer = ask(question, building.events, resolver, now)
        except TripartyError as error:
            found.append(f"{question} -> {error}")
            continue
        if not _is_right(answer.value, expected):
            found.append(f"{question} -> {answer.text}")
    return found


def _is_right(said: object, expected: Expected) -> bool:
    if isinstance(expected, float):
        return isinstance(said, float) and abs(said - expected) <= TOLERANCE_S
    if isinstance(expected, tuple):
        return isinstance(said, tuple) and set(said) == set(expected)
    return type(said) is type(expected) and said == expected
