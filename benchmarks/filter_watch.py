"""Filters of the counting of people and vehicles: of brightness, and of feature maps.

Halves of stretches of 5 seconds, drawn at random: those learnt from, and others judged by;
frames within half a second of a judged stretch are left out. The threshold is calibrated on
other stretches than those learnt from. A stream to reuse on begins with an empty cache that
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
from triparty.device.filters.scores import point_at, random_reuse_level

APART = 5  # frames
SETTINGS = CacheSettings(first=10)
COURSE = {"image": Course(epochs=8), "vector": Course(epochs=12)}


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
    """Brightness for `image`, feature maps for `vector`."""
    clip = watched(name)
    return clip.luma if modality == "image" else clip.maps


def fitted(name: str, modality: str, kind: str, seed: int) -> Filter:
    """A filter, calibrated apart."""
    learned, kept, _ = split(name, seed)
    inputs, count = inputs_of(name, modality), watched(name).count
    recipe = Recipe(
        kind,  # type: ignore[arg-type]
        calibration_share=0.05,  # not used: it would be of the same seconds
        reuse=SETTINGS,
    )
    made = Filter.fit(
        inputs[learned],
        count[learned],
        count_zero() if kind == "skip" else None,
        recipe=recipe,
        modality=modality,  # type: ignore[arg-type]
        course=replace(COURSE[modality], seed=seed),
    )
    made.calibrate(inputs[kept], count[kept])
    return made


@lru_cache(maxsize=64)
def skip_counts(name: str, modality: str, seed: int) -> Figures:
    """Figures of a filter that skips frames with nothing to count."""
    made, tested = fitted(name, modality, "skip", seed), split(name, seed)[2]
    logits = made.outputs(inputs_of(name, modality)[tested])[:, 0].astype(np.float64)
    needed = watched(name).count[tested] > 0
    kept = point_at(logits, needed, made.artifact.tasks[0].calibration.threshold)
    return skip_figures(logits, needed) | {
        "kept": kept.filter_rate,
        "accuracy": kept.accuracy,
    }


@lru_cache(maxsize=64)
def reuse_counts(name: str, modality: str, seed: int) -> Figures:
    """Figures of a filter that reuses the count of a frame that means the same."""
    made, tested = fitted(name, modality, "reuse", seed), split(name, seed)[2]
    keys = made.outputs(inputs_of(name, modality)[tested])[:, 0]
    count = watched(name).count[tested]
    # In a clip's order the first entries are of one count: without a largest distance they
    # agree about everything that comes.
    best = best_reuse_point(keys, count, SETTINGS, 0.9)
    kept = reuse_point(keys, count, SETTINGS, made.artifact.tasks[0].calibration.threshold)
    return {
        "best 0.9": best.filter_rate,
        "random": random_reuse_level(count, 0.9),
        "kept": kept.filter_rate,
        "accuracy": kept.accuracy,
    }


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
