"""The reuse cache: who the neighbours are, what they agree on, who makes room."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from triparty.common.errors import SettingsError
from triparty.device.filters.cache import CacheSettings, ReuseCache
from triparty.device.filters.replay import (
    best_reuse_point,
    calibrate_reuse,
    distances_to_try,
    replay,
)

PLAIN = CacheSettings(size=8, neighbours=3, least_theta=0.0, first=0)


def filled(entries: list[tuple[float, Any]], settings: CacheSettings = PLAIN) -> ReuseCache:
    cache = ReuseCache(1, settings)
    for place, result in entries:
        cache.put(key(place), result)
    return cache


def key(place: float) -> Any:
    return np.array([place], np.float32)


def test_an_empty_cache_knows_nothing() -> None:
    found = ReuseCache(1, PLAIN).look(key(0.0))
    assert (found.is_hit, found.result, found.theta) == (False, None, 0.0)


@given(st.integers(0, 2**32 - 1))
def test_lookup_is_the_definition(seed: int) -> None:
    """FoggyCache's homogenised neighbours, written out one by one."""
    rng = np.random.default_rng(seed)
    count, k = int(rng.integers(1, 20)), int(rng.integers(1, 8))
    keys, labels = rng.normal(size=(count, 4)).astype(np.float32), rng.integers(0, 3, count)
    cache = ReuseCache(4, CacheSettings(32, k, 0.0, first=0))
    for one, label in zip(keys, labels, strict=True):
        cache.put(one, int(label))
    wanted = rng.normal(size=4).astype(np.float32)
    gaps = [float(np.abs(one - wanted).sum()) for one in keys]
    ordered = sorted(zip(gaps, labels.tolist(), strict=True))[:k]
    mean = sum(d for d, _ in ordered) / len(ordered)
    votes = [label for d, label in ordered if d <= mean * (1 + 1e-6)]
    counts = [votes.count(label) for label in set(votes)]
    found = cache.look(wanted)
    assert found.theta == pytest.approx(max(counts) / sum(n * n for n in counts) ** 0.5)
    assert votes.count(found.result) == max(counts)
    assert found.distance == pytest.approx(ordered[0][0], rel=1e-5)


def test_two_against_one_and_a_far_neighbour_that_does_not_vote() -> None:
    cache = filled([(0.0, "a"), (1.0, "b"), (-1.0, "a")])
    found = cache.look(key(0.1))
    assert found.theta == 1.0  # the mean leaves only the nearest
    assert found.result == "a"
    even = filled([(1.0, "a"), (-1.0, "b")]).look(key(0.0))
    assert even.theta == pytest.approx(1 / 2**0.5)


def test_agreement_and_distance_both_can_make_a_miss() -> None:
    entries = [(1.0, "a"), (-1.0, "b")]
    strict = replace(PLAIN, least_theta=0.8)
    assert not filled(entries, strict).look(key(0.0)).is_hit
    assert filled(entries[:1] * 2, strict).look(key(0.0)).is_hit
    near = replace(PLAIN, most_distance=2.0)
    assert filled(entries[:1], near).look(key(3.0)).is_hit
    assert not filled(entries[:1], near).look(key(3.1)).is_hit  # an outlier all agree on


def test_nothing_is_reused_before_there_are_enough_entries() -> None:
    settings = replace(PLAIN, first=2)
    assert not filled([(0.0, "a")], settings).look(key(0.0)).is_hit
    assert filled([(0.0, "a"), (9.0, "a")], settings).look(key(0.0)).is_hit
    small = CacheSettings(size=1, neighbours=1, first=50)
    assert filled([(0.0, "a")], small).look(key(0.0)).is_hit


def test_the_least_used_makes_room_and_of_these_the_oldest() -> None:
    settings = replace(PLAIN, size=3, neighbours=1)
    cache = filled([(0.0, "a"), (10.0, "b"), (20.0, "c")], settings)
    cache.look(key(0.0))
    cache.look(key(20.0))
    cache.put(key(30.0), "d")  # b goes
    assert cache.look(key(10.0)).distance == 10.0
    cache.put(key(40.0), "e")  # d goes: never used, and older than nothing else unused
    assert cache.look(key(30.0)).distance == 10.0
    assert len(cache) == 3
    assert cache.look(key(0.0)).result == "a"


def test_only_neighbours_with_the_result_are_used() -> None:
    settings = replace(PLAIN, size=3, neighbours=3)
    cache = filled([(0.0, "a"), (0.0, "a"), (0.0, "b")], settings)
    cache.look(key(0.0))
    cache.put(key(5.0), "c")  # b goes, though it was among the neighbours
    assert cache.look(key(0.0)).theta == 1.0
    assert {cache.look(key(0.0)).result, cache.look(key(5.0)).result} == {"a", "c"}


def test_results_that_left_take_no_room() -> None:
    cache = ReuseCache(1, replace(PLAIN, size=4))
    for number in range(1000):
        cache.put(key(float(number)), number)
    assert len(cache._classes) == len(cache._members) == 4


def test_settings_that_cannot_decide_are_refused() -> None:
    for wrong in (
        {"size": 0},
        {"neighbours": 0},
        {"least_theta": 1.1},
        {"most_distance": -1.0},
        {"first": -1},
    ):
        with pytest.raises(SettingsError):
            CacheSettings(**wrong)  # type: ignore[arg-type]


def stream(count: int, *, noise: float, seed: int = 0) -> tuple[Any, Any]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, count)
    keys = labels[:, None] * 4.0 + rng.normal(scale=noise, size=(count, 1))
    return keys.astype(np.float32), labels


def test_a_replay_counts_what_a_loop_counts() -> None:
    keys, labels = stream(120, noise=1.2)
    settings = CacheSettings(40, 5, 0.5, 1.0, first=10)
    done = replay(keys, labels, settings)
    cache, reused, wrong = ReuseCache(1, settings), 0, 0
    for one, label in zip(keys, labels, strict=True):
        found = cache.look(one)
        if found.is_hit:
            reused, wrong = reused + 1, wrong + (found.result != label)
        else:
            cache.put(one, int(label))
    assert (done.reused, done.wrong, done.seen) == (reused, wrong, 120)
    assert 0 < wrong < reused < 120


def test_calibrated_reuse_keeps_its_target_on_other_streams() -> None:
    settings = CacheSettings(200, 5, 0.5, first=10)
    keys, labels = stream(400, noise=1.3)
    distances = distances_to_try(stream(200, noise=1.3, seed=7)[0])
    found = calibrate_reuse(keys, labels, settings, distances)
    assert found.threshold is not None
    assert 0.2 < found.filter_rate < 1.0
    fixed = replace(settings, most_distance=found.threshold)
    kept = [
        replay(*stream(400, noise=1.3, seed=seed), fixed).accuracy >= 0.9
        for seed in range(10, 30)
    ]
    assert sum(kept) >= 18
    loose = [
        replay(*stream(400, noise=1.3, seed=seed), settings).accuracy >= 0.9
        for seed in range(10, 30)
    ]
    assert sum(loose) <= 5  # the negative control: no distance, no accuracy
    assert best_reuse_point(keys, labels, settings, 0.9).filter_rate >= found.filter_rate


def test_reuse_that_cannot_be_shown_to_be_right_is_none() -> None:
    keys, labels = stream(25, noise=0.1)
    settings = CacheSettings(first=5)
    assert calibrate_reuse(keys, labels, settings, [0.0, 1.0]).threshold is None
    assert calibrate_reuse(keys, labels, CacheSettings(first=50), [1.0]).threshold is None
