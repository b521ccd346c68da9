"""Decoys are as long as the real question, and as plausible as their kind allows."""

from __future__ import annotations

import itertools
from collections import Counter
from random import Random

import numpy as np
import pytest

from triparty.common.decoys import DecoyKind, DecoyTexts
from triparty.common.errors import SettingsError

TEXTS = [np.array(text) for text in ([1, 5, 6, 5, 7], [1, 5, 6, 8], [1, 9, 9, 9, 9, 9, 2, 3])]
PAIRS = {pair for text in TEXTS for pair in itertools.pairwise(text)}


@pytest.mark.parametrize("kind", DecoyKind)
@pytest.mark.parametrize("length", [1, 2, 4, 5, 8])
def test_a_decoy_has_the_length_and_the_beginning_of_a_text(
    kind: DecoyKind, length: int
) -> None:
    drawn = DecoyTexts(TEXTS, kind).draw(length, Random(length))
    assert len(drawn) == length
    assert drawn[0] == 1
    assert set(drawn) <= {int(token) for text in TEXTS for token in text}


def test_texts_of_the_same_length_come_first() -> None:

    def drawn(length: int) -> set[tuple[int, ...]]:
        return {tuple(DecoyTexts(TEXTS).draw(length, Random(n))) for n in range(40)}

    assert drawn(5) == {(1, 5, 6, 5, 7)}
    assert drawn(6) == {(1, 9, 9, 9, 9, 9)}
    assert drawn(3) == {(1, 5, 6), (1, 9, 9)}


def test_a_text_serves_once_and_when_none_is_left_it_says_so() -> None:
    texts = DecoyTexts(TEXTS)
    drawn = [tuple(texts.draw(4, Random(n))) for n in range(3)]
    assert len(set(drawn)) == 3
    with pytest.raises(SettingsError, match="0 decoy texts"):
        texts.draw(4, Random(0))
    remembered = DecoyTexts(TEXTS, spent=set(texts.spent))
    with pytest.raises(SettingsError, match="add texts"):
        remembered.draw(1, Random(0))
    with pytest.raises(SettingsError, match="has 30 tokens"):
        DecoyTexts(TEXTS).draw(30, Random(0))


def test_pairs_are_those_of_the_texts_as_often_as_there() -> None:
    texts = DecoyTexts(TEXTS, DecoyKind.BIGRAM)
    after = Counter(texts.draw(2, Random(n))[1] for n in range(3000))
    assert set(after) == {5, 9}
    assert abs(after[5] / 3000 - 2 / 3) < 0.05
    drawn = texts.draw(7, Random(0))
    assert set(itertools.pairwise(drawn)) <= PAIRS | {(7, 1), (8, 1), (3, 1)}


def test_single_tokens_are_as_frequent_as_in_the_texts() -> None:
    drawn = DecoyTexts(TEXTS, DecoyKind.UNIGRAM).draw(6000, Random(0))[1:]
    assert abs(drawn.count(9) / len(drawn) - 5 / 14) < 0.03
    assert 1 not in drawn, "a first token is not drawn in the middle"


@pytest.mark.parametrize("texts", [[], [np.array([1])], [np.array([], np.int64)]])
def test_texts_without_two_tokens_are_refused(texts: list[np.ndarray]) -> None:
    with pytest.raises(SettingsError, match="two tokens"):
        DecoyTexts(texts)
