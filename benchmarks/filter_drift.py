"""Drift: offline, periodic and active updates of a skip filter, with equally many labels each.

Thesis fig. 3.15, on body motion: the windows of HAR in their order, subject by subject, in ten
periods; from the fifth on the phone is worn turned by a quarter, so that gravity lies on another
axis. The model knows both ways of wearing it. All ways label a tenth of the windows:

* offline: the first tenth of the stream, once;
* periodic: the first tenth of each period, before the rest of it is filtered;
* random: a tenth of each period drawn after it;
* active: the tenth of each period of which the filter was least sure, after it;
* audited: half of that tenth by chance, the other half what it was least sure of, as the kit's own
  update does: where a filter is sure and wrong, doubt finds nothing.

The last three begin with the first tenth of the first period. All train on from their weights on
all labels that they have, and filter at 0.5, as the thesis does. Judged is what comes after the
first period. A second stream is WiFi, whose drift is that of the set itself: its days.
"""  # noqa: E501 - a table of ways

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.filter_data import Rows, har, har_turned, wifi
from benchmarks.filter_runs import Figures
from triparty.common.nets.course import Course
from triparty.common.nets.design import Design
from triparty.common.nets.samples import Samples, gather

PERIODS, TURN, LABELLED = 10, 4, 0.1
WAYS = ("offline", "periodic", "random", "active", "audited")
Flags = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Stream:
    """Inputs in the order in which they come.

    Attributes:
        inputs: (n, time, signals).
        needed: (n,) whether the model is needed.
        periods: rows of each period.
        modality: of the filter's network.
    """

    inputs: NDArray[Any]
    needed: Flags
    periods: tuple[Rows, ...]
    modality: str


def streamed(name: str, seed: int) -> Stream:
    """`har`, subjects in a random order, turned from the fifth period on; or `wifi` by days."""
    rng = np.random.default_rng(seed)
    if name == "wifi":
        task = wifi()
        order = np.concatenate([rng.permutation(np.flatnonzero(task.group == day))
                                for day in np.unique(task.group)])  # fmt: skip
        periods = tuple(np.array_split(np.arange(len(order)), PERIODS))
        return Stream(task.inputs[order], task.needed[order], periods, "series")
    both, turned = har_turned()
    count, group = len(turned), har().group
    subjects = rng.permutation(np.unique(group))
    order = np.concatenate([np.flatnonzero(group == one) for one in subjects])
    periods = tuple(np.array_split(np.arange(count), PERIODS))
    is_turned = np.arange(count) >= periods[TURN][0]
    rows = order + np.where(is_turned, count, 0)
    return Stream(both.inputs[rows], both.needed[rows], periods, "vector")


@lru_cache(maxsize=64)
def drifted(name: str, way: str, seed: int) -> Figures:
    """Means over the periods after the first, and the worst one's accuracy.

    `right` is the share of inputs of which the filter knows whether the model is needed: one
    that filters nothing is accurate.
    """
    stream = streamed(name, seed)
    follower = _Follower(stream, seed)
    accuracies, rates, right = [], [], []
    for number, rows in enumerate(stream.periods):
        first = rows[: max(1, round(LABELLED * len(rows)))]
        judged = rows
        if number == 0:
            follower.label(rows if way == "offline" else first)
            continue
        if way == "periodic":
            follower.label(first)
            judged = rows[len(first) :]
        skipped = follower.scores(judged) <= 0.0
        accuracies.append(1.0 - float((skipped & stream.needed[judged]).mean()))
        rates.append(float(skipped.mean()))
        right.append(float((skipped != stream.needed[judged]).mean()))
        if way in ("random", "active", "audited"):
            follower.label(_chosen(way, rows, follower, len(first), seed + number))
    return {
        "accuracy": float(np.mean(accuracies)),
        "worst": float(np.min(accuracies)),
        "rate": float(np.mean(rates)),
        "right": float(np.mean(right)),
    }


def _chosen(way: str, rows: Rows, follower: _Follower, count: int, seed: int) -> Rows:
    by_chance = {"random": count, "audited": count // 2, "active": 0}[way]
    drawn = np.random.default_rng(seed).permutation(rows)[:by_chance]
    rest = np.setdiff1d(rows, drawn)
    doubted = np.argsort(np.abs(follower.scores(rest)), kind="stable")
    return np.concatenate([drawn, rest[doubted[: count - by_chance]]])


class _Follower:
    """A filter's network that trains on; without both classes it skips nothing."""

    def __init__(self, stream: Stream, seed: int) -> None:
        from triparty.device.filters.fitting import specifications

        self._stream, self._seed = stream, seed
        specs = specifications(gather(stream.inputs), {"input": stream.modality})  # type: ignore[dict-item]
        self._design = Design("skip", specs)
        self._rows: Rows = np.zeros(0, np.int64)
        self._session: Any = None
        self._weights: Any = None

    def label(self, rows: Rows) -> None:
        """Trains on with the model's answers to these inputs, too."""
        from triparty.common.nets.export import to_onnx, weights_of
        from triparty.common.nets.training import train
        from triparty.device.filters.session import Session

        self._rows = np.concatenate([self._rows, rows])
        labels = self._stream.needed[self._rows].astype(np.int64)[:, None]
        if len(np.unique(labels)) < 2:
            return
        samples = Samples(gather(self._stream.inputs[self._rows]), labels)
        course = Course(seed=self._seed, epochs=12)
        file = to_onnx(train(self._design, samples, course, start=self._weights).network)
        self._weights, self._session = weights_of(file), Session(file, self._design)

    def scores(self, rows: Rows) -> NDArray[np.float64]:
        """(rows,) logits."""
        if self._session is None:
            return np.full(len(rows), np.inf)
        inputs = gather(self._stream.inputs[rows])
        return np.asarray(self._session.run(inputs)[:, 0], np.float64)
