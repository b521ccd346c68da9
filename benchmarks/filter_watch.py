"""Filters of the counting of people and vehicles: of brightness, and of feature maps.

Halves of stretches of 5 seconds, drawn at random: those learnt from, and others judged by;
frames within half a second of a judged stretch are left out. The threshold is calibrated on
other stretches than those learnt from, each as one sample, and again on frames as if they were
independent. A stream to reuse on begins with an empty cache that
answers from the tenth entry on.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.filter_clips import watched
from benchmarks.filter_data import Rows
from benchmarks.filter_foggy import HashedCache
from benchmarks.filter_frozen import micro_scores, mobilenet_maps
from benchmarks.filter_reducto import best_rate
from benchmarks.filter_runs import Figures, skip_figures
from triparty.common.nets.calibration import calibrate_skip
from triparty.common.nets.training import Course
from triparty.device.filters.baselines import (
    nearest_votes,
    previous_curve,
    scored,
    static_scores,
)
from triparty.device.filters.cache import CacheSettings
from triparty.device.filters.filter import Filter
from triparty.device.filters.fitting import Recipe
from triparty.device.filters.low_level import descriptors, scaled
from triparty.device.filters.measures import count_zero
from triparty.device.filters.replay import best_reuse_point, reuse_point
from triparty.device.filters.scores import Point, point_at, random_reuse_level

APART = 5  # frames
DRAWS = 200
SETTINGS = CacheSettings(first=10)
COURSE = {"image": Course(epochs=8), "vector": Course(epochs=12), "pooled": Course()}


@lru_cache
def split(name: str, seed: int) -> tuple[Rows, Rows, Rows]:
    """Frames to learn from, to calibrate with, to judge by, each in the clip's order."""
    block = watched(name).block
    order = np.random.default_rng(seed).permutation(np.unique(block))
    half, quarter = len(order) // 2, max(1, len(order) // 8)
    is_tested = np.isin(block, order[:half])
    near = np.convolve(is_tested, np.ones(2 * APART + 1), "same") > 0
    is_kept = np.isin(block, order[half : half + quarter]) & ~near
    close = np.convolve(is_kept, np.ones(2 * APART + 1), "same") > 0
    learned = np.flatnonzero(~near & ~close)
    return learned, np.flatnonzero(is_kept), np.flatnonzero(is_tested)


def inputs_of(name: str, modality: str) -> NDArray[Any]:
    """Brightness for `image`, feature maps for `vector`, and for `pooled` (n, 128) of them.

    Pooled are each map's largest number and its mean: whether something is there, and how much,
    wherever it stands. A half of a clip is little to learn 64 x 13 x 13 places from.
    """
    clip = watched(name)
    if modality == "image":
        return clip.luma
    if modality == "vector":
        return clip.maps
    return np.concatenate([clip.maps.max(axis=(2, 3)), clip.maps.mean(axis=(2, 3))], axis=1)


def fitted(name: str, modality: str, kind: str, seed: int) -> Filter:
    """A filter; `calibrated` says its threshold."""
    learned = split(name, seed)[0]
    inputs, count = inputs_of(name, modality), watched(name).count
    recipe = Recipe(
        kind,  # type: ignore[arg-type]
        calibration_share=0.05,  # not used: it would be of the same seconds
        reuse=SETTINGS,
    )
    return Filter.fit(
        inputs[learned],
        count[learned],
        count_zero() if kind == "skip" else None,
        recipe=recipe,
        modality="image" if modality == "image" else "vector",
        course=replace(COURSE[modality], seed=seed),
    )


def calibrated(
    made: Filter, name: str, modality: str, seed: int, *, alone: bool
) -> float | None:
    """The threshold on other stretches than those learnt from.

    Args:
        made: the filter.
        name: of the clip.
        modality: of the inputs.
        seed: of the split.
        alone: whether frames are taken for independent, which they are not; else stretches of
            `BLOCK_S` are.
    """
    _, kept, _ = split(name, seed)
    clip, inputs = watched(name), inputs_of(name, modality)
    blocks = None if alone else clip.block[kept]
    made.calibrate(inputs[kept], clip.count[kept], blocks=blocks)
    return made.artifact.tasks[0].calibration.threshold


@lru_cache(maxsize=64)
def skip_counts(name: str, modality: str, seed: int) -> Figures:
    """Figures of a filter that skips frames with nothing to count."""
    made, tested = fitted(name, modality, "skip", seed), split(name, seed)[2]
    logits = made.outputs(inputs_of(name, modality)[tested])[:, 0].astype(np.float64)
    needed = watched(name).count[tested] > 0
    found = skip_figures(logits, needed)
    for alone in (False, True):
        kept = point_at(logits, needed, calibrated(made, name, modality, seed, alone=alone))
        found |= _kept(kept, alone=alone)
    return found


def _kept(point: Point, *, alone: bool) -> dict[str, float]:
    after = " alone" if alone else ""
    return {f"kept{after}": point.filter_rate, f"accuracy{after}": point.accuracy}


@lru_cache(maxsize=64)
def reuse_counts(name: str, modality: str, seed: int) -> Figures:
    """Figures of a filter that reuses the count of a frame that means the same."""
    made, tested = fitted(name, modality, "reuse", seed), split(name, seed)[2]
    keys = made.outputs(inputs_of(name, modality)[tested])[:, 0]
    count = watched(name).count[tested]
    # In a clip's order the first entries are of one count: without a largest distance they
    # agree about everything that comes.
    best = best_reuse_point(keys, count, SETTINGS, 0.9)
    found = {"best 0.9": best.filter_rate, "random": random_reuse_level(count, 0.9)}
    for alone in (False, True):
        distance = calibrated(made, name, modality, seed, alone=alone)
        found |= _kept(reuse_point(keys, count, SETTINGS, distance), alone=alone)
    return found


@lru_cache(maxsize=64)
def promises(name: str, seed: int, target: float, confidence: float) -> Figures:
    """How often calibrated thresholds of maps break their promise on the rest of the clip.

    One filter; stretches that it did not learn from are drawn in halves, one to calibrate, one
    to judge by, again and again. `blocks` takes stretches for independent, `alone` frames.
    """
    clip, made = watched(name), fitted(name, "vector", "skip", seed)
    learned = split(name, seed)[0]
    others = np.setdiff1d(np.unique(clip.block), clip.block[learned])
    logits = made.outputs(clip.maps)[:, 0].astype(np.float64)
    needed, rng = clip.count > 0, np.random.default_rng(seed)
    found = dict.fromkeys(("broken", "kept", "broken alone", "kept alone"), 0.0)
    for _ in range(DRAWS):
        drawn = rng.permutation(others)
        kept, judged = (
            np.flatnonzero(np.isin(clip.block, half)) for half in np.array_split(drawn, 2)
        )
        for after, blocks in (("", clip.block[kept]), (" alone", None)):
            threshold = calibrate_skip(
                logits[kept], needed[kept], blocks=blocks, target_accuracy=target,
                confidence=confidence,
            ).threshold  # fmt: skip
            point = point_at(logits[judged], needed[judged], threshold)
            found[f"broken{after}"] += (point.accuracy < target) / DRAWS
            found[f"kept{after}"] += point.filter_rate / DRAWS
    return found


@lru_cache(maxsize=64)
def skip_beside(name: str, seed: int) -> Figures:
    """The best rates of other ways to skip, on the same frames."""
    clip, (learned, _, tested) = watched(name), split(name, seed)
    needed, features = clip.count > 0, low_features(name)
    ways = {
        "low level + kNN": nearest_votes(features, needed, learned, tested),
        "one threshold": static_scores(features, needed, learned, 0.9)[tested],
        "FilterForward": micro_scores(mobilenet_maps(name), needed, learned, tested, seed),
        "FastestDet": clip.small[tested].astype(np.float64),
    }
    return {way: scored(way, one, needed[tested]).rate_at(0.9) for way, one in ways.items()}


@lru_cache(maxsize=64)
def faces_beside(seed: int) -> Figures:
    """The best rates of ways to skip frames without a face that need no network."""
    clip, (learned, _, tested) = watched("faces"), split("faces", seed)
    needed, features = clip.count > 0, low_features("faces")
    ways = {
        "low level + kNN": nearest_votes(features, needed, learned, tested),
        "one threshold": static_scores(features, needed, learned, 0.9)[tested],
    }
    return {way: scored(way, one, needed[tested]).rate_at(0.9) for way, one in ways.items()}


@lru_cache(maxsize=64)
def reuse_beside(name: str, seed: int) -> Figures:
    """The best rates of other ways to reuse, on the same frames."""
    clip, (learned, _, tested) = watched(name), split(name, seed)
    grey = clip.luma[..., 0].astype(np.float32)
    count, features = clip.count, scaled(low_features(name), learned)
    hashed = HashedCache(features[learned])
    return {
        "Reducto": best_rate((grey[learned], count[learned]), (grey[tested], count[tested]),
                             0.9),
        "FoggyCache": hashed.best_rate(features[tested], count[tested], 0.9, SETTINGS),
        "previous": previous_curve(count[tested]).rate_at(0.9),
    }  # fmt: skip


@lru_cache
def low_features(name: str) -> NDArray[np.float32]:
    """SIFT-like descriptors of the brightness."""
    return descriptors(watched(name).luma[..., 0])
