"""Studies of filters: figures over a number, every line on the same splits and seeds.

Each is a table of cases of the suite, and a drawing of its lines beside the suite's plot. What
they are studies of: thesis 3.5.2, figures 3.7 to 3.11.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.filter_foggy import HashedCache
from benchmarks.filter_runs import (
    THETAS,
    Split,
    Want,
    part_of,
    reuse_keys,
    skip,
    skip_logits,
)
from benchmarks.harness import Case, Effort, Result, case
from triparty.device.filters.baselines import nearest_votes, scored, static_scores
from triparty.device.filters.cache import CacheSettings
from triparty.device.filters.low_level import scaled
from triparty.device.filters.replay import Replayed, replay
from triparty.device.filters.scores import best_point, best_possible

Figure = Callable[[float, int], float]
LYING, SITTING, STANDING, WALKING = 5, 3, 4, 0
SUBSETS = ((LYING,), (SITTING, LYING), (SITTING, STANDING, LYING), (0, 3, 4, 5))


@dataclass(frozen=True)
class Sweep:
    """Lines over a number.

    Attributes:
        name: what is studied.
        axis: what the number is.
        values: of it.
        lines: a share from a number and a seed, by the line's name.
        seeds: how many.
        reference: what the thesis says.
        is_log: whether the axis is drawn as powers.
    """

    name: str
    axis: str
    values: Sequence[float]
    lines: Mapping[str, Figure]
    seeds: int = 5
    reference: str | None = None
    is_log: bool = True

    def cases(self) -> tuple[Case, ...]:
        """One for each point of each line, in %."""
        return tuple(
            self._case(line, value, figure)
            for line, figure in self.lines.items()
            for value in self.values
        )

    def title(self, line: str, value: float) -> str:
        """The name of a case."""
        return f"{self.name}, {line}, {self.axis} {value:g}"

    def _case(self, line: str, value: float, figure: Figure) -> Case:
        def runs(effort: Effort) -> Iterable[float]:
            seeds = 2 if effort.quick else self.seeds
            return [100 * figure(value, seed) for seed in range(seeds)]

        title = self.title(line, value)
        return case(title, unit="%", better="higher", reference=self.reference)(runs)


def draw(sweeps: Sequence[Sweep], results: Sequence[Result], target: Path) -> None:
    """One drawing a sweep: its lines, with what lies between the smallest and the largest."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    by_name = {one.name: one for one in results}
    rows = (len(sweeps) + 1) // 2
    figure, axes = plt.subplots(rows, 2, figsize=(12, 3.6 * rows), squeeze=False)
    for axis in axes.flat[len(sweeps) :]:
        axis.set_visible(False)
    for axis, sweep in zip(axes.flat, sweeps, strict=False):
        for line in sweep.lines:
            found = [by_name[sweep.title(line, one)] for one in sweep.values]
            middle = [one.value for one in found]
            axis.plot(sweep.values, middle, marker="o", markersize=3, label=line)
            low, high = zip(*(one.spread for one in found), strict=True)
            axis.fill_between(sweep.values, low, high, alpha=0.2)
        if sweep.is_log:
            axis.set_xscale("log")
        axis.set_xticks(list(sweep.values), [f"{one:g}" for one in sweep.values], minor=False)
        axis.minorticks_off()
        axis.set_title(sweep.name, fontsize=9)
        axis.set_xlabel(sweep.axis, fontsize=8)
        axis.set_ylabel("%", fontsize=8)
        axis.grid(alpha=0.3)
        axis.legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(target, dpi=120)
    plt.close(figure)


def _har(seed: int) -> Split:
    return Split("har", "random", seed)


def _share_skip(share: float, seed: int) -> float:
    return skip(_har(seed), "vector", Want(share=share))["best 0.95"]


def _share_low(of: str) -> Figure:
    def figure(share: float, seed: int) -> float:
        task, learned, tested = _har(seed).rows()
        rows, needed = part_of(learned, share), task.needed
        if of == "votes":
            scores = nearest_votes(task.summary, needed, rows, tested)
        else:
            scores = static_scores(task.summary, needed, rows, 0.95)[tested]
        return scored("", scores, needed[tested]).rate_at(0.95)

    return figure


def _replays(share: float, seed: int, settings: CacheSettings) -> list[Replayed]:
    task, _, tested = _har(seed).rows()
    keys, _ = reuse_keys(_har(seed), "vector", "pairs", share)
    said = task.said[tested]
    return [replay(keys, said, replace(settings, least_theta=one)) for one in THETAS[::2]]


def _accuracy_of_most(points: Sequence[Replayed]) -> float:
    """The best accuracy with nine of ten answered; 0 where that many never are."""
    return max((one.accuracy for one in points if one.filter_rate >= 0.9), default=0.0)


def _rate_of_right(points: Sequence[Replayed]) -> float:
    return max((one.filter_rate for one in points if one.accuracy >= 0.9), default=0.0)


def _share_reuse(share: float, seed: int) -> float:
    return _accuracy_of_most(_replays(share, seed, CacheSettings()))


def _size(size: float, seed: int) -> float:
    return _rate_of_right(_replays(1.0, seed, CacheSettings(size=int(size))))


def _neighbours(neighbours: float, seed: int) -> float:
    return _rate_of_right(_replays(1.0, seed, CacheSettings(neighbours=int(neighbours))))


@lru_cache(maxsize=8)
def _hashed(seed: int) -> tuple[HashedCache, Any, Any]:
    task, learned, tested = _har(seed).rows()
    features = scaled(task.summary, learned)
    return HashedCache(features[learned]), features[tested], task.said[tested]


def _foggy_size(size: float, seed: int) -> float:
    cache, keys, said = _hashed(seed)
    return cache.best_rate(keys, said, 0.9, CacheSettings(size=int(size)))


def _foggy_neighbours(neighbours: float, seed: int) -> float:
    cache, keys, said = _hashed(seed)
    return cache.best_rate(keys, said, 0.9, CacheSettings(neighbours=int(neighbours)))


def _subset(count: float, seed: int) -> float:
    return skip(_har(seed), "vector", _wanted(count))["share 0.9"]


def _subset_low(count: float, seed: int) -> float:
    task, learned, tested = _har(seed).rows()
    needed = np.isin(task.said, SUBSETS[int(count) - 1])
    votes = nearest_votes(task.summary, needed, learned, tested)
    return scored("", votes, needed[tested]).rate_at(0.9) / best_possible(needed[tested], 0.9)


def _wanted(count: float) -> Want:
    wanted = SUBSETS[int(count) - 1]
    return Want() if wanted == SUBSETS[0] else Want(wanted=wanted)


def _moved(learned: float) -> Figure:
    """Filters that learnt one measure, judged by another: share of what is possible."""

    def figure(count: float, seed: int) -> float:
        task, _, tested = _har(seed).rows()
        logits, _ = skip_logits(_har(seed), "vector", _wanted(learned))
        needed = np.isin(task.said[tested], SUBSETS[int(count) - 1])
        return best_point(logits, needed, 0.9).filter_rate / best_possible(needed, 0.9)

    return figure


def _width(embedding: float, seed: int) -> float:
    sizes = (("embedding", int(embedding)),)
    return skip(Split("users", "random", seed), "vector", Want(sizes=sizes))["best 0.9"]


def _units(units: float, seed: int) -> float:
    sizes = (("units", int(units)),)
    return skip(Split("users", "random", seed), "vector", Want(sizes=sizes))["best 0.9"]


def _share_users(share: float, seed: int) -> float:
    return skip(Split("users", "random", seed), "vector", Want(share=share))["best 0.9"]


def _share_users_low(share: float, seed: int) -> float:
    task, learned, tested = Split("users", "random", seed).rows()
    rows, needed = part_of(learned, share), task.needed
    votes = nearest_votes(task.summary, needed, rows, tested)
    return scored("", votes, needed[tested]).rate_at(0.9)


SHARES = (0.03, 0.1, 0.3, 1.0)
SWEEPS = (
    Sweep(
        "HAR lying, skip: filter rate at 95 %, learnt from a share of the training part",
        "share",
        SHARES,
        {
            "vector (published)": _share_skip,
            "low level + kNN": _share_low("votes"),
            "one threshold": _share_low("threshold"),
        },
        reference="thesis fig. 3.9: 86.4 with all, 81.1 with a tenth",
    ),
    Sweep(
        "HAR, reuse: accuracy with 90 % answered, learnt from a share of the training part",
        "share",
        SHARES[1:],
        {"vector (published)": _share_reuse},
        reference="thesis fig. 3.9: 95.9 with all, 88.1 with a tenth",
    ),
    Sweep(
        "HAR, reuse: filter rate over entries of the cache",
        "entries",
        (10, 30, 100, 300, 1000),
        {"vector (published)": _size, "FoggyCache": _foggy_size},
        seeds=3,
        reference="thesis 3.5.1: 1000 entries",
    ),
    Sweep(
        "HAR, reuse: filter rate over neighbours",
        "K",
        (1, 5, 10, 20),
        {"vector (published)": _neighbours, "FoggyCache": _foggy_neighbours},
        seeds=3,
        reference="thesis fig. 3.11, pictures: filter alike for K of 1 and 5, FoggyCache 27.3 "
        "and 68.4",
    ),
    Sweep(
        "HAR, skip: share of what is possible over wanted activities",
        "activities",
        (1, 2, 3, 4),
        {"vector (published)": _subset, "low level + kNN": _subset_low},
        reference="thesis fig. 3.8: smooth for both subsets",
        is_log=False,
    ),
    Sweep(
        "HAR, skip: share of what is possible for another measure than was learnt",
        "activities",
        (1, 2, 3),
        {f"learnt for {one}": _moved(one) for one in (1, 2, 3)},
        reference="thesis fig. 3.7: what needs more transfers to what needs less, not back",
        is_log=False,
    ),
    Sweep(
        "HAR users, skip: filter rate over width of the embedding",
        "width",
        (1, 16, 64, 256),
        {"vector (published)": _width},
        seeds=3,
        reference="thesis fig. 3.10b: alike but for a width of 1",
    ),
    Sweep(
        "HAR users, skip: filter rate over units",
        "units",
        (1, 100, 200, 400),
        {"vector (published)": _units},
        seeds=3,
        reference="thesis fig. 3.10b: alike but for 1 unit",
    ),
    Sweep(
        "HAR users, skip: filter rate at 90 %, learnt from a share of the training part",
        "share",
        SHARES[1:],
        {"vector (published)": _share_users, "low level + kNN": _share_users_low},
    ),
)
