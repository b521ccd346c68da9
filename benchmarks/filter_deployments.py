"""Throughput and traffic of the three deployments, computed from parts measured here.

No network is run: the times of the detector, its halves, and the filters are each
measured on one thread, and put together with the filter rates of the counting of vehicles (the
best of the test curve at 90 % accuracy). A picture counts as its 416 x 416 x 3 bytes as the
model takes them, a feature map as float32.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import lru_cache

import numpy as np

from benchmarks.filter_clips import SIDE, halves, pooled, session
from benchmarks.filter_clips import detector_file as detector
from benchmarks.filter_cost import file, runner, shortest
from benchmarks.filter_watch import skip_counts
from benchmarks.harness import Case, Effort, case
from triparty.common.nets.inputs import InputSpec

IMAGE = InputSpec("x", "image", (72, 128, 1))
MAPS = InputSpec("x", "vector", (64, 13, 13))
PICTURE_BYTES = SIDE * SIDE * 3


@lru_cache
def parts() -> dict[str, float]:
    """Milliseconds of each part for one frame, and bytes of a feature map."""
    picture = np.zeros((1, 3, SIDE, SIDE), np.float32)
    first, second = session(halves().first), session(halves().second)
    maps = first.run(None, {"images": picture})[0]
    whole = session(detector().read_bytes())
    image, vector = (np.zeros((1, *spec.shape), np.float32) for spec in (IMAGE, MAPS))
    return {
        "model": shortest(lambda: whole.run(None, {"images": picture})),
        "first": shortest(lambda: first.run(None, {"images": picture})),
        "second": shortest(lambda: second.run(None, {halves().layer: maps})),
        "pooling": shortest(lambda: pooled(maps)),
        "image filter": shortest(runner(file(IMAGE), image)),
        "map filter": shortest(runner(file(MAPS), vector)),
        "map bytes": float(maps.nbytes),
    }


def on_device(rate: float) -> float:
    """Frames that a device with filter and model takes in the time of one without."""
    part = parts()
    return part["model"] / (part["image filter"] + (1.0 - rate) * part["model"])


def offloaded(_: float) -> float:
    """Frames that a device with the filter alone takes in the time of one with the model."""
    return parts()["model"] / parts()["image filter"]


def partitioned(_: float) -> float:
    """The same of a device with the first half and the filter of its feature maps."""
    part = parts()
    return part["model"] / (part["first"] + part["pooling"] + part["map filter"])


def _cases(name: str, modality: str, of: Callable[[float], float], unit: str = "x") -> Case:
    def runs(effort: Effort) -> Iterable[float]:
        for seed in range(2 if effort.quick else 5):
            parts.cache_clear()
            yield of(skip_counts("vehicles", modality, seed)["best 0.9"])

    return case(
        f"vehicles, computed from measured parts: {name}",
        unit=unit,
        better="lower" if unit == "%" else "higher",
        reference="thesis tables 3.4-3.6: 3.2 -> 9.3 (skip) and 27.2 (reuse) FPS on device",
    )(runs)


DEPLOYMENTS = (
    _cases("on device, throughput over the model alone", "image", on_device),
    _cases("offloaded, throughput of the device over the model on it", "image", offloaded),
    _cases("offloaded, traffic of pictures", "image", lambda rate: 100 * (1 - rate), "%"),
    _cases("partitioned, throughput of the device over the model", "vector", partitioned),
    _cases(
        "partitioned, traffic beside that of all pictures",
        "vector",
        lambda rate: 100 * (1 - rate) * parts()["map bytes"] / PICTURE_BYTES,
        "%",
    ),
    _cases(
        "partitioned, time of the cloud beside the model's",
        "vector",
        lambda rate: 100 * (1 - rate) * parts()["second"] / parts()["model"],
        "%",
    ),
)
