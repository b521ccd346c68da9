"""Frequency analysis: what counts of symbols and of their pairs tell without any key."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from triparty.developer.audit import Knowledge, Level
from triparty.developer.audit.attacks import Frequency
from triparty.developer.audit.averages import numbered
from triparty.developer.audit.claims import Truth
from triparty.developer.audit.deciphering import Counts, by_pairs, by_rank

SYMBOLS = 60


def written(tokens: int, *, seed: int, language: int = 0) -> NDArray[np.int64]:
    """Text of a language that is a Markov chain."""
    rng = np.random.default_rng(language)
    share = rng.dirichlet(np.full(SYMBOLS, 0.5))
    chain = np.cumsum(rng.dirichlet(share * 20 + 1e-2, size=SYMBOLS), axis=1)
    draws = np.random.default_rng(seed).random(tokens)
    ids = np.zeros(tokens, np.int64)
    for i in range(1, tokens):
        ids[i] = min(int(np.searchsorted(chain[ids[i - 1]], draws[i])), SYMBOLS - 1)
    return ids


def read(ids: NDArray[np.int64], language: NDArray[np.int64]) -> tuple[float, float]:
    """Shares of a text that ranks of symbols, and pairs of symbols, tell."""
    order = np.random.default_rng(9).permutation(SYMBOLS)
    seen, known = Counts.of([order[ids]]), Counts.of([language])
    plain = np.argsort(order)[seen.symbols]
    shares = [
        float(((found == plain) * seen.alone).sum() / seen.alone.sum())
        for found in (by_rank(seen, known), by_pairs(seen, known))
    ]
    return shares[0], shares[1]


def test_pairs_tell_more_than_ranks_and_long_text_more_than_short() -> None:
    language = written(40_000, seed=1)
    ranks, pairs = read(written(40_000, seed=2), language)
    assert pairs > 0.98
    assert ranks < 0.9
    assert read(written(100, seed=2), language)[1] < 0.6


def successions(tokens: int, *, seed: int) -> NDArray[np.int64]:
    """Text in which most tokens are followed by one and the same other one."""
    language = np.random.default_rng(0)
    after, share = language.permutation(SYMBOLS), language.dirichlet(np.ones(SYMBOLS))
    rng = np.random.default_rng(seed)
    ids = rng.choice(SYMBOLS, tokens, p=share)
    for i in np.flatnonzero(rng.random(tokens) < 0.6):
        ids[i] = after[ids[i - 1]] if i else ids[i]
    return ids


def test_what_comes_first_counts() -> None:
    language = successions(20_000, seed=1)
    assert read(successions(10_000, seed=2), language)[1] > 0.7
    assert read(successions(10_000, seed=2), language[::-1])[1] < 0.3


def test_another_language_tells_little() -> None:
    language = written(40_000, seed=1, language=4)
    assert read(written(40_000, seed=2), language)[1] < 0.3


def test_pairs_that_follow_no_rule_tell_nothing() -> None:
    rng = np.random.default_rng(3)
    mine, theirs = (rng.integers(0, SYMBOLS, 40_000) for _ in range(2))
    assert read(mine, theirs)[1] < 0.1


def test_counts() -> None:
    counts = Counts.of([np.array([5, 3, 5, 3]), np.array([3, 7])], most=2)
    assert counts.symbols.tolist() == [3, 5]
    assert counts.alone.tolist() == [3, 2]
    assert counts.pairs.tolist() == [[0, 1], [2, 0]]


def test_rows_under_a_key_are_read_as_symbols() -> None:
    rows = np.random.default_rng(0).normal(size=(SYMBOLS, 16)).astype(np.float32)
    ids = written(20_000, seed=2).reshape(-1, 20)
    traffic = [part for text in ids for part in (rows[text[:10]], *rows[text[10:], None])]
    knowledge = Knowledge(tuple(traffic), language=(written(40_000, seed=1),))
    found = np.concatenate(Frequency().mount(knowledge).token_ids)
    assert (found == ids.ravel()).mean() > 0.95
    control = Frequency().mount(Frequency().control(knowledge))
    assert (np.concatenate(control.token_ids) == ids.ravel()).mean() < 0.1


def test_what_it_lacks(capp_model: Path, scene_of: Any) -> None:
    assert "no traffic" in str(Frequency().lacks(Knowledge(())))
    scene = scene_of(capp_model, scheme="orthogonal")
    assert "positions" in str(Frequency().lacks(scene.knowledge.at(Level.K0)))


def test_the_attackers_text_is_not_the_text_of_the_traffic(
    stories_model: Path, scene_of: Any
) -> None:
    scene = scene_of(stories_model, scheme="permutation")
    language = scene.knowledge.at(Level.K0).language
    assert sum(map(len, language)) > 50_000
    asked = [ids.tobytes() for ids in scene.truth.token_ids if len(ids) > 8]
    assert len(asked) > 10
    for text in language:
        assert not any(text.tobytes().startswith(ids) for ids in asked)


def noisy(ids: NDArray[np.int64], noise: float) -> NDArray[np.float32]:
    """Rows of tokens, each with fresh noise of that share of its size."""
    rng = np.random.default_rng(3)
    rows = rng.normal(size=(SYMBOLS, 48))[ids]
    size = np.sqrt(np.square(rows).mean(axis=1, keepdims=True))
    return (rows + noise * size * rng.normal(size=rows.shape)).astype(np.float32)


@pytest.mark.parametrize("noise", [0.05, 0.5, 0.8])
def test_rows_of_one_token_are_told_through_noise(noise: float) -> None:
    ids = written(3000, seed=1)
    numbers = numbered(noisy(ids, noise), noise)
    pairs = np.unique(np.stack([numbers, ids]), axis=1).shape[1]
    assert pairs == len(np.unique(numbers)), "no number stands for two tokens"
    assert len(np.unique(numbers)) < 1.5 * len(np.unique(ids))


def test_counting_goes_on_through_noise() -> None:
    ids, language = written(3_000, seed=1), written(40_000, seed=2)
    rows = noisy(ids, 0.5)
    knowledge = Knowledge((rows,), language=(language,), noise=0.5)
    truth = Truth((ids,), np.zeros((SYMBOLS, 1)), np.zeros((1, 1)), np.arange(SYMBOLS), {})
    assert Frequency().mount(knowledge).score(truth) > 0.9
    unaware = Frequency().mount(replace(knowledge, noise=0.0))
    assert unaware.share == 0.0, "no two rows are equal"
    random = np.random.default_rng(0).normal(size=rows.shape).astype(np.float32)
    unlike = replace(knowledge, traffic=(random,))
    assert Frequency().mount(unlike).score(truth) <= 0.1


@pytest.mark.slow
@pytest.mark.parametrize("rows", [10_000, 60_000])
def test_it_reads_what_a_trained_model_writes(rows: int, stories_model: Path) -> None:
    from benchmarks.sampled_texts import sampled_texts

    mine = sampled_texts(stories_model, rows, seed=1)
    theirs = sampled_texts(stories_model, 60_000, seed=2)
    order = np.random.default_rng(9).permutation(512)
    seen, known = Counts.of(list(order[mine])), Counts.of(list(theirs))
    plain = np.argsort(order)[seen.symbols]
    right = by_pairs(seen, known) == plain
    assert (right * seen.alone).sum() / seen.alone.sum() > 0.9
    assert right.mean() > 0.8
