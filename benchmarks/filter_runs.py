"""One filter, trained on one part of a task and judged on the other.

Nothing is chosen on the test part, but for the `best` point of its curve, which is how the
thesis reports; `kept` is the threshold calibrated on a quarter of the training part.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import filter_data
from benchmarks.filter_data import Rows, Task
from triparty.common.nets.calibration import calibrate_skip
from triparty.common.nets.samples import gather
from triparty.common.nets.training import Course
from triparty.device.filters.cache import CacheSettings
from triparty.device.filters.filter import Filter
from triparty.device.filters.fitting import Recipe
from triparty.device.filters.measures import class_not_in
from triparty.device.filters.replay import replay, reuse_point
from triparty.device.filters.scores import (
    best_point,
    best_possible,
    point_at,
    quality,
    random_level,
    random_reuse_level,
)

TARGETS = (0.9, 0.95, 0.99)
THETAS = (0.5, 0.6, 0.7, 0.8, 0.9, 0.99)
Figures = Mapping[str, float]
Augment = Callable[[NDArray[Any], np.random.Generator], NDArray[Any]]


@dataclass(frozen=True)
class Split:
    """Which rows a filter learns from, and which judge it.

    Attributes:
        task: by its name in `filter_data`.
        kind: `random`, or `groups`: by subject, fold or day.
        seed: of the split; of `groups`, which are held out.
    """

    task: str
    kind: str
    seed: int

    def rows(self) -> tuple[Task, Rows, Rows]:
        """The task, rows to learn from, rows to judge by."""
        task: Task = getattr(filter_data, self.task)()
        if self.kind == "random":
            return (task, *filter_data.halves(len(task.said), self.seed))
        names = np.unique(task.group[task.group != 0])
        held = (
            filter_data.some_groups(task.group, 0.5, self.seed)
            if len(names) > 4
            else [int(names[self.seed % len(names)])]
        )
        learned, tested = filter_data.by_group(task.group, held)
        rng = np.random.default_rng(self.seed)
        return task, rng.permutation(learned), rng.permutation(tested)


@dataclass(frozen=True)
class Want:
    """What a filter is for, and what it is made with, where that is not its task's own.

    Attributes:
        wanted: classes for which the model is needed; none: the task's.
        share: of the training part that is learnt from.
        stretch: inputs in a row of the set that are calibrated as a block; 0: each by itself.
        sizes: of the network that differ from the published ones.
    """

    wanted: tuple[int, ...] = ()
    share: float = 1.0
    stretch: int = 0
    sizes: tuple[tuple[str, int], ...] = ()


PLAIN = Want()


@lru_cache(maxsize=64)
def skip(split: Split, modality: str, want: Want = PLAIN) -> Figures:
    """Figures of a skip filter."""
    task, _, tested = split.rows()
    logits, threshold = skip_logits(split, modality, want)
    needed = np.isin(task.said[tested], want.wanted or task.wanted)
    kept = point_at(logits, needed, threshold)
    return skip_figures(logits, needed) | {"kept": kept.filter_rate, "accuracy": kept.accuracy}


@lru_cache(maxsize=128)
def skip_logits(
    split: Split, modality: str, want: Want
) -> tuple[NDArray[np.float64], float | None]:
    """(tested,) logits of a skip filter, and its calibrated threshold."""
    task, learned, tested = split.rows()
    learned = part_of(learned, want.share)
    fitted = Filter.fit(
        task.inputs[learned],
        task.said[learned],
        class_not_in(*(want.wanted or task.wanted)),
        recipe=Recipe("skip", sizes=dict(want.sizes)),
        modality=modality,  # type: ignore[arg-type]
        course=Course(seed=split.seed),
        blocks=learned // want.stretch if want.stretch else None,
    )
    logits = fitted.outputs(task.inputs[tested])[:, 0].astype(np.float64)
    return logits, fitted.artifact.tasks[0].calibration.threshold


def part_of(learned: Rows, share: float) -> Rows:
    """The first so many of rows that are in no order."""
    return learned[: max(1, round(share * len(learned)))]


def skip_figures(logits: NDArray[np.float64], needed: NDArray[np.bool_]) -> dict[str, float]:
    """Best rates, what is possible and what is luck, at every target."""
    found: dict[str, float] = {}
    for target in TARGETS:
        rate = best_point(logits, needed, target).filter_rate
        possible, random = best_possible(needed, target), random_level(needed, target)
        found |= {
            f"best {target}": rate,
            f"share {target}": rate / possible,
            f"possible {target}": possible,
            f"random {target}": random,
            f"quality {target}": quality(rate, possible, random) or 0.0,
        }
    return found


@lru_cache(maxsize=64)
def skip_shifted(split: Split, modality: str, copies: int) -> Figures:
    """The same, learnt from copies of the training inputs shifted in time and level.

    The quarter for calibration is of other recordings than those that are learnt from.
    """
    from triparty.common.nets.design import Design
    from triparty.common.nets.export import to_onnx
    from triparty.common.nets.samples import Samples
    from triparty.common.nets.training import train
    from triparty.device.filters.fitting import specifications
    from triparty.device.filters.session import Session

    task, learned, tested = split.rows()
    quarter = len(learned) // 4
    kept, rest = learned[:quarter], learned[quarter:]
    rng = np.random.default_rng(split.seed)
    inputs = np.concatenate([task.inputs[rest], *(shifted(task.inputs[rest], rng) for _ in
                             range(copies))])  # fmt: skip
    gathered = gather(inputs)
    design = Design("skip", specifications(gathered, {"input": modality}))  # type: ignore[dict-item]
    labels = np.tile(task.needed[rest].astype(np.int64), copies + 1)[:, None]
    trained = train(design, Samples(gathered, labels), Course(seed=split.seed, epochs=12))
    session = Session(to_onnx(trained.network), design)
    logits, calibrating = (
        session.run(gather(task.inputs[rows]))[:, 0].astype(np.float64)
        for rows in (tested, kept)
    )
    needed = task.needed[tested]
    point = point_at(logits, needed, calibrate_skip(calibrating, task.needed[kept]).threshold)
    figures = skip_figures(logits, needed)
    return figures | {"kept": point.filter_rate, "accuracy": point.accuracy}


def shifted(inputs: NDArray[Any], rng: np.random.Generator) -> NDArray[Any]:
    """(n, time, signals) rolled in time, louder or quieter, with a stretch blanked out."""
    made = np.empty_like(inputs)
    length = inputs.shape[1]
    for row, one in enumerate(inputs):
        made[row] = np.roll(one, rng.integers(length), axis=0) + rng.normal(scale=0.05)
        start, width = rng.integers(length), rng.integers(length // 5)
        made[row, start : start + width] = one.mean()
    return made


@lru_cache(maxsize=64)
def reuse(split: Split, modality: str, loss: str) -> Figures:
    """Figures of a reuse filter; its `best` point is of distances and agreements."""
    task, _, tested = split.rows()
    keys, threshold = reuse_keys(split, modality, loss, 1.0)
    said, settings = task.said[tested], CacheSettings()
    found: dict[str, float] = {"random": random_reuse_level(said, 0.9)}
    points = [replay(keys, said, replace(settings, least_theta=theta)) for theta in THETAS]
    for target in TARGETS:
        rates = [one.filter_rate for one in points if one.accuracy >= target]
        found[f"best {target}"] = max(rates, default=0.0)
    kept = reuse_point(keys, said, settings, threshold)
    all_hits = points[0]
    return found | {
        "kept": kept.filter_rate,
        "accuracy": kept.accuracy,
        "agreement": all_hits.accuracy,
    }


@lru_cache(maxsize=64)
def reuse_keys(
    split: Split, modality: str, loss: str, share: float
) -> tuple[NDArray[np.float32], float | None]:
    """(tested, width) keys of a reuse filter, and its calibrated distance."""
    task, learned, tested = split.rows()
    learned = part_of(learned, share)
    fitted = Filter.fit(
        task.inputs[learned],
        task.said[learned],
        recipe=Recipe("reuse"),
        modality=modality,  # type: ignore[arg-type]
        course=Course(seed=split.seed, loss=loss),  # type: ignore[arg-type]
    )
    keys = fitted.outputs(task.inputs[tested])[:, 0]
    return keys, fitted.artifact.tasks[0].calibration.threshold
