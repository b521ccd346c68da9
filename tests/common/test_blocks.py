"""Samples that depend on each other: what holds by blocks, and does not without them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from triparty.common.errors import DatasetError
from triparty.common.nets import calibration
from triparty.common.nets.blocks import (
    alike_for,
    blocks_of,
    blocks_show,
    drawn_blocks,
    first_half,
    least_blocks,
    per_block,
)
from triparty.common.nets.calibration import calibrate_skip, most_wrong
from triparty.device.filters.cache import CacheSettings
from triparty.device.filters.replay import calibrate_reuse, replay

DRAWS, BLOCKS, LENGTH, STAYS = 300, 80, 40, 0.85
CONFIDENCE = 0.9


def clip(frames: int, seed: int) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Scores and needs of frames that stay as they are for about 1 / (1 - STAYS) of them.

    Scores err by what lies before the camera, which stays too, so that wrong answers come in
    bursts.
    """
    rng = np.random.default_rng(seed)
    scene = np.cumsum(rng.random(frames) > STAYS)
    needed = (rng.random(frames) < 0.4)[scene]
    fault = rng.normal(size=frames)[scene]
    return 1.4 * needed + fault + 0.05 * rng.normal(size=frames), needed


LONG = clip(400_000, seed=1)


def true_accuracy(threshold: float | None) -> float:
    if threshold is None:
        return 1.0
    logits, needed = LONG
    return 1.0 - float(((logits <= threshold) & needed).mean())


def test_the_promise_holds_for_frames_by_blocks_and_not_without() -> None:
    """Law: at most a tenth of filters calibrated with 90 % break it, of frames too."""
    blocks = np.repeat(np.arange(BLOCKS), LENGTH)
    broken, naive, rates = 0, 0, []
    for seed in range(DRAWS):
        logits, needed = clip(BLOCKS * LENGTH, seed=seed + 2)
        found = calibrate_skip(logits, needed, blocks=blocks, confidence=CONFIDENCE)
        alone = calibrate_skip(logits, needed, confidence=CONFIDENCE)
        broken += true_accuracy(found.threshold) < 0.9
        naive += true_accuracy(alone.threshold) < 0.9
        rates.append(found.filter_rate)
        assert found.blocks == BLOCKS
    allowed = DRAWS * 0.1 + 3 * (DRAWS * 0.1 * 0.9) ** 0.5
    assert broken <= allowed
    assert naive > 1.5 * allowed  # the negative control: frames taken for independent
    assert np.mean(rates) > 0.4  # and the promise is not kept by filtering nothing


@pytest.mark.parametrize("share", [1.0, 0.4, 0.1])
def test_what_is_not_so_is_rarely_shown(share: float) -> None:
    """Law: blocks of which the mean is at the rate show less in 5 % of draws at most."""
    rng = np.random.default_rng(3)
    bad = rng.random((4000, 60)) < 0.1 / share  # in so many blocks this share is wrong
    shown = blocks_show(100 * share * bad, np.full(60, 100.0), 0.9, 0.95)
    assert shown.mean() <= 0.05 + 3 * (0.05 * 0.95 / 4000) ** 0.5


def test_blocks_of_one_are_nearly_as_good_as_the_exact_bound() -> None:
    """The price of knowing nothing of a block: a few wrong answers of 200."""
    rng = np.random.default_rng(4)
    assert most_wrong(200, 0.9, 0.95) == 12
    for wrong, least, most in ((7, 0.9, 1.0), (18, 0.0, 0.15)):
        drawn = rng.permuted(np.tile(np.arange(200) < wrong, (300, 1)), axis=1)
        assert least <= blocks_show(drawn, np.ones(200), 0.9, 0.95).mean() <= most


def test_32_blocks_show_90_percent_and_31_do_not() -> None:
    assert least_blocks(0.9, 0.95) == 32
    for count, shown in ((31, False), (32, True)):
        blocks = np.repeat(np.arange(count), 1000)
        found = calibrate_skip(np.arange(1000.0 * count), blocks < 0, blocks=blocks)
        assert (found.threshold is not None) is shown
        assert found.blocks == count
    one = np.zeros(50_000, np.int64)
    assert calibrate_skip(np.arange(50_000.0), one < 0, blocks=one).threshold is None


def test_a_wrong_block_costs_as_much_as_it_is_large() -> None:
    sizes = np.array([40.0] * 60 + [4.0])
    small, large = np.zeros((2, 61))
    small[60], large[0] = 4.0, 40.0
    many = np.where(np.arange(61) < 6, 40.0, 0.0)
    assert blocks_show(small, sizes, 0.9, 0.95)
    assert not blocks_show(many, sizes, 0.9, 0.95)
    assert blocks_show(np.stack([small, many]), sizes, 0.9, 0.95).tolist() == [True, False]


def test_many_small_blocks_do_not_outvote_few_large_ones() -> None:
    sizes = np.array([2.0] * 160 + [100.0] * 40)
    wrong = np.where(sizes > 2, 20.0, 0.0)  # 19 % of all, 4 % of the mean block
    order = np.random.default_rng(0).permutation(200)
    assert not blocks_show(wrong[order], sizes[order], 0.9, 0.95)
    assert blocks_show((wrong / 20.0)[order], sizes[order], 0.9, 0.95)


def test_thresholds_tried_in_parts_are_those_tried_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    logits, needed = clip(60 * LENGTH, seed=9)
    blocks = np.repeat(np.arange(60), LENGTH)
    at_once = calibrate_skip(logits, needed, blocks=blocks, target_accuracy=0.8)
    assert at_once.accuracy < 0.95
    for cells in (1, 60 * 7):
        monkeypatch.setattr(calibration, "_MOST_CELLS", cells)
        assert at_once == calibrate_skip(logits, needed, blocks=blocks, target_accuracy=0.8)


@given(st.lists(st.integers(-3, 3), min_size=1, max_size=40), st.integers(0, 2**32 - 1))
def test_whole_blocks_are_drawn_and_halved(values: list[int], seed: int) -> None:
    blocks = blocks_of(values)
    assert len(np.unique(blocks)) == len(set(values)) == blocks.max() + 1
    for is_in in (drawn_blocks(blocks, 0.25, seed), first_half(blocks, len(blocks))):
        assert not set(blocks[is_in]) & set(blocks[~is_in])
    wrong, sizes = per_block(np.asarray(values) > 0, blocks)
    assert sizes.sum() == len(values)
    assert wrong.sum() == sum(one > 0 for one in values)


def test_stretches_of_numbers() -> None:
    assert blocks_of([10.0, 10.4, 11.1, 14.0, 10.9], 1.0).tolist() == [0, 0, 1, 2, 0]
    assert blocks_of(["b", "a", "b"]).tolist() == [1, 0, 1]


@pytest.mark.parametrize(
    ("values", "length", "message"),
    [
        ([], None, "one value a row"),
        ([[1], [2]], None, "one value a row"),
        ([1.0, 2.0], 0.0, "a length above 0"),
        (["a"], 1.0, "expected numbers"),
        ([1.0, np.nan], 1.0, "row 1"),
    ],
)
def test_what_parts_nothing_is_refused(values: Any, length: float | None, message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        blocks_of(values, length)


def test_blocks_of_another_number_are_refused() -> None:
    with pytest.raises(DatasetError, match="expected as many"):
        calibrate_skip(np.arange(9.0), np.zeros(9, bool), blocks=np.zeros(8, np.int64))
    keys, labels = np.zeros((9, 1), np.float32), np.zeros(9, np.int64)
    with pytest.raises(DatasetError, match="expected as many"):
        calibrate_reuse(keys, labels, CacheSettings(), [1.0], blocks=labels[1:])


def test_rows_that_stay_alike_are_noticed() -> None:
    rng = np.random.default_rng(0)
    steps = np.cumsum(rng.random(4000) > 0.9)  # each for ten rows on average
    held = (rng.random(4000) < 0.5)[steps]
    assert 10 <= alike_for(held) <= 80
    assert sum(alike_for(rng.random(500) < 0.3) > 0 for _ in range(50)) <= 5
    assert alike_for(np.zeros(100)) == alike_for(np.arange(4)) == 0


def test_reuse_is_calibrated_by_blocks() -> None:
    """Stretches whose results change together count as one each."""
    rng = np.random.default_rng(5)
    settings = CacheSettings(200, 5, 0.5, first=10)
    blocks = np.repeat(np.arange(100), 20)
    labels = np.repeat(rng.integers(0, 3, 100), 20)
    faults = np.repeat(rng.normal(scale=1.2, size=100), 20)
    keys = (labels * 4.0 + faults)[:, None] + rng.normal(scale=0.05, size=(2000, 1))
    keys = keys.astype(np.float32)
    distances = [0.01, 0.1, 0.4, 1.0, 2.0, 8.0]
    found = calibrate_reuse(keys, labels, settings, distances, blocks=blocks)
    alone = calibrate_reuse(keys, labels, settings, distances)
    assert found.blocks == 100
    assert alone.blocks == 0
    assert found.threshold is not None
    assert alone.threshold is not None
    assert found.threshold < alone.threshold  # frames of one stretch are not twenty samples
    within = replace(settings, most_distance=found.threshold)
    assert replay(keys, labels, within).accuracy >= 0.9
    few = calibrate_reuse(keys[:400], labels[:400], settings, distances, blocks=blocks[:400])
    assert few.threshold is None
