"""Stop texts: the same end however the text comes in pieces."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from triparty.common.errors import SettingsError
from triparty.device.inference.options import MAX_STOPS, GenerationOptions
from triparty.device.inference.stopping import StopTexts

LETTERS = st.text("ab", max_size=30)
STOPS = st.lists(st.text("ab", min_size=1, max_size=5), max_size=3)


def told(pieces: list[str], stops: list[str]) -> tuple[str, bool]:
    passing = StopTexts(stops)
    shown = "".join(passing.after(piece) for piece in pieces) + passing.rest()
    return shown, passing.is_found


def before_stop(text: str, stops: list[str]) -> tuple[str, bool]:
    """One character after the other: the stop that is complete first."""
    for end in range(1, len(text) + 1):
        starts = [end - len(stop) for stop in stops if text[:end].endswith(stop)]
        if starts:
            return text[: min(starts)], True
    return text, False


@given(text=LETTERS, stops=STOPS, cuts=st.lists(st.integers(0, 30)))
def test_pieces_do_not_matter(text: str, stops: list[str], cuts: list[int]) -> None:
    places = sorted({0, *(min(cut, len(text)) for cut in cuts), len(text)})
    pieces = [text[a:b] for a, b in pairwise(places)]
    assert told(pieces, stops) == told(list(text), stops) == before_stop(text, stops)


@given(text=LETTERS, stops=STOPS)
def test_nothing_is_held_back_longer_than_needed(text: str, stops: list[str]) -> None:
    passing, shown = StopTexts(stops), ""
    for end, letter in enumerate(text, start=1):
        shown += passing.after(letter)
        if passing.is_found:
            return
        held = text[len(shown) : end]
        assert any(stop.startswith(held) for stop in stops) or not held
        assert passing.holds == bool(held)


def test_a_stop_is_no_part_of_the_answer() -> None:
    assert told(["Once ", "upon a", " time, th", "ere was"], [", the", "upon"]) == (
        "Once ",
        True,
    )
    assert told(["Once ", "up on"], ["upon"]) == ("Once up on", False)


@pytest.mark.parametrize("stop", ["", ["a", ""], ["a"] * (MAX_STOPS + 1)])
def test_stops_without_a_meaning_are_refused(stop: str | list[str]) -> None:
    with pytest.raises(SettingsError, match="stop takes"):
        GenerationOptions(stop=stop)


def test_options_from_a_record_and_by_name() -> None:
    base = GenerationOptions(temperature=0.5, stop="end")
    assert base.stops == ("end",)
    changed = GenerationOptions.of(base, {"max_tokens": 3, "stop": ["a", "b"]})
    assert (changed.temperature, changed.max_tokens, changed.stops) == (0.5, 3, ("a", "b"))
    with pytest.raises(SettingsError, match="max-tokens"):
        GenerationOptions.of(None, {"max_tokens": 0})
    with pytest.raises(SettingsError, match="logprobs"):
        GenerationOptions(logprobs=-1)
    with pytest.raises(SettingsError, match="deadline"):
        GenerationOptions(deadline_s=0)
