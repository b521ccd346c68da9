"""Input filters: filter rate at an accuracy on real data, beside luck and simple ways; cost.

A run is a seed of split, weights and order; of ESC-10, a fold. Rates are of the best threshold
for the test part, as the thesis reports, where they are not said to be calibrated.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from benchmarks.filter_baselines import (
    cepstral_vote,
    filter_forward,
    foggy,
    majority,
    nearest_result,
    nearest_vote,
    previous,
    static_threshold,
)
from benchmarks.filter_cost import COST
from benchmarks.filter_data import har
from benchmarks.filter_deployments import DEPLOYMENTS
from benchmarks.filter_drift import WAYS, drifted
from benchmarks.filter_runs import Figures, Split, Want, reuse, skip, skip_shifted
from benchmarks.filter_sweeps import SWEEPS
from benchmarks.filter_sweeps import draw as draw_sweeps
from benchmarks.filter_watch import (
    faces_beside,
    promises,
    reuse_beside,
    reuse_counts,
    skip_beside,
    skip_counts,
)
from benchmarks.harness import Better, Case, Effort, Result, case
from triparty.device.filters.cache import CacheSettings

THESIS_SKIP = "thesis table 3.2, at 90 % accuracy"
THESIS_DRIFT = "thesis fig. 3.15: active 94.8, periodic 87.0, offline 56.4 at 0.5"
THESIS_REUSE = "thesis table 3.3, at 90 % accuracy"
SEEDS = 5
Cases = tuple[Case, ...]


def seeds(effort: Effort) -> range:
    """Two for a short form, else five."""
    return range(2 if effort.quick else SEEDS)


def percent(
    name: str,
    make: Callable[[int], float],
    *,
    target: float | None = None,
    reference: str | None = None,
    better: Better = "higher",
) -> Case:
    """A case that is a share by seed."""

    def runs(effort: Effort) -> Iterable[float]:
        return [100 * make(seed) for seed in seeds(effort)]

    return case(name, unit="%", better=better, target=target, reference=reference)(runs)


def _skip(task: str, kind: str, modality: str, figure: str) -> Callable[[int], float]:
    return lambda seed: skip(Split(task, kind, seed), modality)[figure]


def _esc(figure: str) -> Callable[[int], float]:
    return lambda seed: _esc_figures(seed)[figure]


def _esc_figures(seed: int) -> Figures:
    return skip_shifted(Split("esc10", "groups", seed), "series", 8)


def _reuse(
    modality: str, figure: str, kind: str = "random", loss: str = "pairs"
) -> Callable[[int], float]:
    return lambda seed: reuse(Split("har", kind, seed), modality, loss)[figure]


def _baseline(task: str, kind: str, of: Callable[..., float]) -> Callable[[int], float]:
    return lambda seed: of(*Split(task, kind, seed).rows(), 0.9)


def _neighbours(seed: int) -> float:
    task, _, tested = Split("har", "random", seed).rows()
    return nearest_result(task, tested, 0.9, CacheSettings())


def _majority(seed: int) -> float:
    task, _, tested = Split("har", "random", seed).rows()
    return majority(task.said[tested], 0.9)


def _accuracy(task: str) -> Callable[[int], float]:
    return lambda seed: Split(task, "random", seed).rows()[0].accuracy


HAR_SKIP = (
    percent(
        "HAR: accuracy of the model that is filtered, by its set's labels", _accuracy("har")
    ),
    percent(
        "HAR lying, skip, series: share of what is possible",
        _skip("har", "random", "series", "share 0.9"),
        target=99.5,
        reference=f"{THESIS_SKIP}: 91.2 of 91.8, 99.3 %",
    ),
    percent(
        "HAR lying, skip, vector (published): filter rate",
        _skip("har", "random", "vector", "best 0.9"),
        reference=f"{THESIS_SKIP}: 91.2",
    ),
    percent(
        "HAR lying, skip, series: filter rate",
        _skip("har", "random", "series", "best 0.9"),
        reference=f"{THESIS_SKIP}: 91.2",
    ),
    percent("HAR lying, skip: possible", _skip("har", "random", "series", "possible 0.9")),
    percent(
        "HAR lying, skip, series, calibrated: filter rate",
        _skip("har", "random", "series", "kept"),
    ),
    percent(
        "HAR lying, skip, series, calibrated: accuracy",
        _skip("har", "random", "series", "accuracy"),
        target=90.0,
    ),
    percent(
        "HAR lying, skip, series: filter rate at 95 %",
        _skip("har", "random", "series", "best 0.95"),
        reference="thesis 3.5.2: 86.4",
    ),
    percent(
        "HAR lying, skip, series: filter rate at 99 %",
        _skip("har", "random", "series", "best 0.99"),
    ),
    percent(
        "HAR lying, skip, series, other subjects: share of what is possible",
        _skip("har", "groups", "series", "share 0.9"),
    ),
    percent("HAR lying, skip, by chance", _skip("har", "random", "series", "random 0.9")),
    percent("HAR lying, skip, low level + kNN", _baseline("har", "random", nearest_vote)),
    percent(
        "HAR lying, skip, best static threshold", _baseline("har", "random", static_threshold)
    ),
)

HAR_REUSE = (
    percent(
        "HAR, reuse, series: filter rate",
        _reuse("series", "best 0.9"),
        target=98.0,
        reference=f"{THESIS_REUSE}: 98.3",
    ),
    percent(
        "HAR, reuse, series: accuracy if all hits are taken", _reuse("series", "agreement")
    ),
    percent(
        "HAR, reuse, vector (published): filter rate",
        _reuse("vector", "best 0.9"),
        reference=f"{THESIS_REUSE}: 98.3",
    ),
    percent(
        "HAR, reuse, vector, contrastive loss (published): filter rate",
        _reuse("vector", "best 0.9", loss="contrastive"),
    ),
    percent("HAR, reuse, series, calibrated: filter rate", _reuse("series", "kept")),
    percent(
        "HAR, reuse, series, calibrated: accuracy", _reuse("series", "accuracy"), target=90.0
    ),
    percent("HAR, reuse, series: filter rate at 95 %", _reuse("series", "best 0.95")),
    percent(
        "HAR, reuse, series, other subjects: filter rate",
        _reuse("series", "best 0.9", kind="groups"),
    ),
    percent("HAR, reuse, by chance", _reuse("series", "random")),
    percent("HAR, reuse, low level + H-KNN", _neighbours),
    percent(
        "HAR, reuse, FoggyCache: low level + hashed H-KNN", _baseline("har", "random", foggy)
    ),
    percent("HAR, reuse, majority", _majority),
    percent(
        "HAR, reuse, previous result in recorded order", lambda _: previous(har().said, 0.9)
    ),
)

WIFI = (
    percent("WiFi: accuracy of the model that is filtered, in sample", _accuracy("wifi")),
    percent(
        "WiFi moving, skip, series: share of what is possible",
        _skip("wifi", "random", "series", "share 0.9"),
        target=95.0,
        reference=f"{THESIS_SKIP}: 11.6 of 31.1, 37 %",
    ),
    percent(
        "WiFi moving, skip, series: filter rate",
        _skip("wifi", "random", "series", "best 0.9"),
        reference=f"{THESIS_SKIP}: 11.6",
    ),
    percent("WiFi moving, skip: possible", _skip("wifi", "random", "series", "possible 0.9")),
    percent("WiFi moving, skip, by chance", _skip("wifi", "random", "series", "random 0.9")),
    percent(
        "WiFi moving, skip, vector (published): filter rate",
        _skip("wifi", "random", "vector", "best 0.9"),
    ),
    percent(
        "WiFi moving, skip, series, calibrated: filter rate",
        _skip("wifi", "random", "series", "kept"),
    ),
    percent(
        "WiFi moving, skip, series, calibrated: accuracy",
        _skip("wifi", "random", "series", "accuracy"),
        target=90.0,
    ),
    percent(
        "WiFi moving, skip, series, another day: filter rate",
        _skip("wifi", "groups", "series", "best 0.9"),
        reference="possible: 37.9 to 42.3",
    ),
    percent("WiFi moving, skip, low level + kNN", _baseline("wifi", "random", nearest_vote)),
    percent(
        "WiFi moving, skip, another day, low level + kNN",
        _baseline("wifi", "groups", nearest_vote),
    ),
)

ESC10 = (
    percent("ESC-10: accuracy of the model that is filtered, in sample", _accuracy("esc10")),
    percent(
        "ESC-10 anomaly, skip, series, other folds: share of what is possible",
        _esc("share 0.9"),
        target=87.0,
        reference=f"{THESIS_SKIP}: 75.4 of 86.8, 87 %",
    ),
    percent("ESC-10 anomaly, skip, series, other folds: filter rate", _esc("best 0.9")),
    percent("ESC-10 anomaly, skip: possible", _esc("possible 0.9")),
    percent("ESC-10 anomaly, skip, by chance", _esc("random 0.9")),
    percent("ESC-10 anomaly, skip, calibrated: filter rate", _esc("kept")),
    percent("ESC-10 anomaly, skip, calibrated: accuracy", _esc("accuracy"), target=90.0),
    percent(
        "ESC-10 anomaly, skip, other folds, low level + kNN",
        _baseline("esc10", "groups", nearest_vote),
    ),
    percent(
        "ESC-10 anomaly, skip, other folds, cepstral + kNN",
        _baseline("esc10", "groups", cepstral_vote),
    ),
    percent(
        "ESC-10 anomaly, skip, other folds, FilterForward: YAMNet + micro-classifier",
        _baseline("esc10", "groups", filter_forward),
    ),
    percent(
        "ESC-10 anomaly, skip, other folds, best static threshold",
        _baseline("esc10", "groups", static_threshold),
    ),
)


def _text(task: str, name: str, reference: str, target: float) -> tuple[Case, ...]:
    return (
        percent(f"{name}: accuracy of the model that is filtered", _accuracy(task)),
        percent(
            f"{name}, skip, text: share of what is possible",
            _skip(task, "random", "text", "share 0.9"),
            target=target,
            reference=f"{THESIS_SKIP}: {reference}",
        ),
        percent(f"{name}, skip, text: filter rate", _skip(task, "random", "text", "best 0.9")),
        percent(
            f"{name}, skip, text: (rate - chance) / (possible - chance)",
            _skip(task, "random", "text", "quality 0.9"),
        ),
        percent(f"{name}, skip: possible", _skip(task, "random", "text", "possible 0.9")),
        percent(f"{name}, skip, by chance", _skip(task, "random", "text", "random 0.9")),
        percent(
            f"{name}, skip, text, calibrated: filter rate",
            _skip(task, "random", "text", "kept"),
        ),
        percent(
            f"{name}, skip, text, calibrated: accuracy",
            _skip(task, "random", "text", "accuracy"),
            target=90.0,
        ),
        percent(f"{name}, skip, frequent words + kNN", _baseline(task, "random", nearest_vote)),
    )


def _counting(name: str, modality: str, says: str, skipped: str, reused: str) -> list[Case]:
    """Both filters of one clip; `skipped` and `reused` are the thesis's figures."""
    target = 100 * (66.5 / 77.7 if modality == "image" else 70.7 / 77.7)

    def skipping(figure: str) -> Callable[[int], float]:
        return lambda seed: skip_counts(name, modality, seed)[figure]

    def reusing(figure: str) -> Callable[[int], float]:
        return lambda seed: reuse_counts(name, modality, seed)[figure]

    task = f"{name} on a clip"
    return [
        percent(
            f"{task}, skip, {says}: share of what is possible",
            skipping("share 0.9"),
            target=round(target, 1),
            reference=f"{THESIS_SKIP}: {skipped}",
        ),
        percent(f"{task}, skip, {says}: filter rate", skipping("best 0.9")),
        *_calibrated(f"{task}, skip, {says}", skipping),
        percent(
            f"{task}, reuse, {says}: filter rate",
            reusing("best 0.9"),
            reference=f"{THESIS_REUSE}: {reused}",
        ),
        *_calibrated(f"{task}, reuse, {says}", reusing),
    ]


def _calibrated(task: str, of: Callable[[str], Callable[[int], float]]) -> list[Case]:
    """By stretches of 5 seconds, and by frames as if they were independent."""
    return [
        percent(f"{task}, calibrated by {says}: {told}", of(key), target=target)
        for says, after in (("stretches", ""), ("frames", " alone"))
        for told, key, target in (
            ("filter rate", f"kept{after}", None),
            ("accuracy", f"accuracy{after}", 90.0),
        )
    ]


def _watched(name: str) -> tuple[Case, ...]:
    """Filters of a clip, and what they have to beat, on the same seconds of it."""

    def skipping(way: str) -> Case:
        return percent(
            f"{name} on a clip, skip, {way}",
            lambda seed: skip_beside(name, seed)[way],
        )

    def reusing(way: str) -> Case:
        return percent(
            f"{name} on a clip, reuse, {way}",
            lambda seed: reuse_beside(name, seed)[way],
        )

    return (
        percent(
            f"{name} on a clip, skip: possible",
            lambda seed: skip_counts(name, "vector", seed)["possible 0.9"],
        ),
        percent(
            f"{name} on a clip, skip, by chance",
            lambda seed: skip_counts(name, "vector", seed)["random 0.9"],
        ),
        *_counting(name, "image", "image", "66.5 of 77.7, 86 %", "91.1"),
        *_counting(name, "vector", "feature maps", "70.7 of 77.7, 91 %", "95.0"),
        *_counting(name, "pooled", "feature maps pooled", "70.7 of 77.7, 91 %", "95.0"),
        *(skipping(one) for one in ("low level + kNN", "one threshold", "FilterForward",
                                    "FastestDet")),
        *(reusing(one) for one in ("Reducto", "FoggyCache", "previous")),
    )  # fmt: skip


def _faces(way: str) -> Callable[[int], float]:
    return lambda seed: faces_beside(seed)[way]


def _faces_skip(figure: str) -> Callable[[int], float]:
    return lambda seed: skip_counts("faces", "image", seed)[figure]


FACES = (
    percent(
        "faces on a clip, skip, image: share of what is possible",
        _faces_skip("share 0.9"),
        target=55.7,
        reference=f"{THESIS_SKIP}: 36.1 of 64.8, 56 %",
    ),
    percent("faces on a clip, skip, image: filter rate", _faces_skip("best 0.9")),
    percent("faces on a clip, skip: possible", _faces_skip("possible 0.9")),
    percent("faces on a clip, skip, by chance", _faces_skip("random 0.9")),
    *(
        percent(f"faces on a clip, skip, {way}", _faces(way))
        for way in ("low level + kNN", "one threshold")
    ),
)


def _signals(task: str, name: str, reference: str, target: float, groups: str | None) -> Cases:
    """A task of signals over time: both networks, and what they have to beat."""
    found = [
        percent(f"{name}: accuracy of the model that is filtered", _accuracy(task)),
        percent(
            f"{name}, skip, series: share of what is possible",
            _skip(task, "random", "series", "share 0.9"),
            target=target,
            reference=f"{THESIS_SKIP}: {reference}",
        ),
        percent(
            f"{name}, skip, series: filter rate", _skip(task, "random", "series", "best 0.9")
        ),
        percent(
            f"{name}, skip, vector (published): filter rate",
            _skip(task, "random", "vector", "best 0.9"),
        ),
        percent(f"{name}, skip: possible", _skip(task, "random", "series", "possible 0.9")),
        percent(f"{name}, skip, by chance", _skip(task, "random", "series", "random 0.9")),
        percent(
            f"{name}, skip, series, calibrated: filter rate",
            _skip(task, "random", "series", "kept"),
        ),
        percent(
            f"{name}, skip, series, calibrated: accuracy",
            _skip(task, "random", "series", "accuracy"),
            target=90.0,
        ),
        percent(f"{name}, skip, low level + kNN", _baseline(task, "random", nearest_vote)),
        percent(
            f"{name}, skip, best static threshold", _baseline(task, "random", static_threshold)
        ),
    ]
    if groups is not None:
        found += [
            percent(
                f"{name}, skip, vector, {groups}: share of what is possible",
                _skip(task, "groups", "vector", "share 0.9"),
            ),
            percent(
                f"{name}, skip, {groups}, low level + kNN",
                _baseline(task, "groups", nearest_vote),
            ),
        ]
    return tuple(found)


USERS = _signals("users", "HAR users", "72.4 of 79.8, 91 %", 90.7, None)
DIGITS = _signals("digits", "spoken digits", "44.1 of 59.9, 74 %", 73.6, "other speakers")
RADIO = _signals("radio", "generated radio", "40.9 of 59.9, 68 %", 68.3, None)


def _drift(stream: str, way: str, figure: str) -> Callable[[int], float]:
    return lambda seed: drifted(stream, way, seed)[figure]


DRIFT = tuple(
    percent(
        f"{says}, {way} updates: {told}",
        _drift(stream, way, figure),
        reference=THESIS_DRIFT,
    )
    for stream, says in (("har", "HAR, phone turned midway"), ("wifi", "WiFi, day by day"))
    for figure, told in (
        ("accuracy", "accuracy at 0.5"),
        ("right", "right at 0.5"),
        ("rate", "filter rate at 0.5"),
        ("worst", "accuracy of the worst period"),
    )
    for way in WAYS
)


def _stretches(kind: str, figure: str, stretch: int) -> Callable[[int], float]:
    return lambda seed: skip(Split("har", kind, seed), "vector", Want(stretch=stretch))[figure]


def _promise(name: str, figure: str, small: bool) -> Callable[[int], float]:
    goal = (0.7, 0.8) if small else (0.9, 0.95)
    return lambda seed: promises(name, seed, *goal)[figure]


def _dependent(name: str) -> Iterable[Case]:
    """How often a clip's thresholds break what they promise."""
    for goal, small in (("90 % with 95 %", False), ("70 % with 80 %", True)):
        for says, after in (("frames", " alone"), ("stretches", "")):
            task = f"{name} on a clip, maps, {goal}, calibrated by {says}"
            yield percent(
                f"{task}: promises broken",
                _promise(name, f"broken{after}", small),
                better="lower",
            )
            yield percent(f"{task}: filter rate", _promise(name, f"kept{after}", small))


DEPENDENT = (
    *(
        percent(
            f"HAR lying, skip, vector, other subjects, calibrated by {says}: {told}",
            _stretches("groups", figure, stretch),
            target=90.0 if figure == "accuracy" else None,
        )
        for says, stretch in (("windows", 0), ("stretches of 16 windows", 16))
        for figure, told in (("kept", "filter rate"), ("accuracy", "accuracy"))
    ),
    *_dependent("persons"),
    *_dependent("vehicles"),
)
STUDIES = tuple(one for sweep in SWEEPS for one in sweep.cases())


def draw(results: Sequence[Result], target: Path) -> None:
    """The lines of the studies."""
    draw_sweeps(SWEEPS, results, target)


VEHICLES = _watched("vehicles")
PEOPLE = _watched("persons")
PERSONS = _text("persons", "WNUT17 person", "26.8 of 34.4, 78 %", 78.0)
SENTIMENT = _text("sentiment", "sentiment praise", "22.5 of 63.8, 35 %", 35.0)

__all__ = [
    "COST",
    "DEPENDENT",
    "DEPLOYMENTS",
    "DIGITS",
    "DRIFT",
    "ESC10",
    "FACES",
    "HAR_REUSE",
    "HAR_SKIP",
    "PEOPLE",
    "PERSONS",
    "RADIO",
    "SENTIMENT",
    "STUDIES",
    "USERS",
    "VEHICLES",
    "WIFI",
]
