"""One site four times: all looked at; with a gate; with filters, too; with links, too.

Cases for the suite `system`. The gateway is that of `triparty device watch`, in virtual time:
in its own, nobody could look at everything on two cores. Sixteen cameras play first halves of
real clips in a loop, each from another place on where a clip has one; FastestDet counts
persons, cars and bottles, the Ultra-Light detector faces. Without the gate every packet is
decoded and every frame looked at by both: what it says is the truth. What filters and links
know is of second halves.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.harness import BenchError, Case, Effort, case
from benchmarks.site_films import (
    FACES,
    LEAST,
    OBJECTS,
    detector,
    save_filter,
    save_plan,
    write_film,
)
from triparty.common.errors import TripartyError
from triparty.device.events.database import database_url
from triparty.device.events.store import EventStore
from triparty.device.gateway.asking import make_asker
from triparty.device.gateway.clock import VirtualClock
from triparty.device.gateway.outputs import open_events
from triparty.device.gateway.settings import WatchSettings
from triparty.device.gateway.status import GatewayStatus
from triparty.device.gateway.watching import make_gateway

SECONDS, QUICK_SECONDS = 120.0, 20.0
STEP_S = 0.1
WARM_UP_S = 5.0
NEAR_S = 2.0
WHOLE_MS, BUDGET_MS = 10_000.0, 2.4
NOON = datetime(2027, 7, 5, 12, tzinfo=UTC).timestamp()
BOTTLES, CARS, PEOPLE = range(3)
CAMERAS = {
    "hall": PEOPLE,
    "yard": CARS,
    "counter": BOTTLES,
    "lobby": PEOPLE,
    "kitchen": PEOPLE,
    "garage": CARS,
    "cellar": BOTTLES,
    "library": PEOPLE,
    "office": PEOPLE,
    "car park": CARS,
    "workshop": PEOPLE,
    "corridor": PEOPLE,
    "canteen": PEOPLE,
    "studio": PEOPLE,
    "archive": PEOPLE,
    "balcony": PEOPLE,
}
"""Their clips, by place in `CLIPS`."""
TASKS = {BOTTLES: ("bottles",), CARS: ("cars",), PEOPLE: ("persons", FACES)}
FILTERED = ((OBJECTS, BOTTLES), (OBJECTS, CARS), (OBJECTS, PEOPLE), (FACES, PEOPLE))
"""Models behind filters, and clips of the cameras that each filter is of."""
WHOLE, GATE, FILTERS, LINKS = "whole", "gate", "gate and filters", "gate, filters and links"
WITH = (GATE, FILTERS, LINKS)


@dataclass
class Heard:
    """What a run said, and what it cost.

    Attributes:
        documents: results and events, at the time of the film.
        status: at the end.
    """

    documents: list[dict[str, Any]] = field(default_factory=list)
    status: GatewayStatus | None = None

    def write(self, documents: Sequence[Mapping[str, Any]], now: float) -> None:
        """Takes documents of the gateway."""
        for one in documents:
            if one["type"] in ("event", "result"):
                self.documents.append({**one, "wall": NOON + float(one["time"])})

    def close(self) -> None:
        """Holds nothing."""

    def changes(self) -> dict[tuple[str, str], list[tuple[float, Any]]]:
        """Of each camera's tasks, when an answer began that held, and which."""
        found: dict[tuple[str, str], list[tuple[float, Any]]] = {}
        for one in self.documents:
            if one["type"] == "event":
                key = one["camera"], one["task"]
                found.setdefault(key, []).append((one["time"], one["after"]))
        return {key: sorted(each) for key, each in found.items()}

    def states(self, key: tuple[str, str], seconds: float) -> NDArray[np.int64]:
        """The answer that held at each step of the film's time, as a number."""
        known = self.changes().get(key, [])
        values = np.array([0, *(int(value) for _, value in known)])
        steps = np.arange(WARM_UP_S, seconds, STEP_S)
        return values[np.searchsorted([when for when, _ in known], steps, side="right")]

    @property
    def ended(self) -> GatewayStatus:
        """The status at the end."""
        if self.status is None:
            raise BenchError("the gateway told no status")
        return self.status

    def looks(self) -> int:
        """Of both models: frames that neither filters nor links answered."""
        if self.ended.plan is not None:
            return sum(self.ended.plan.measured.values())
        given = sum(self.ended.stages[model].frames for model in (OBJECTS, FACES))
        return given - sum(one.filtered + one.reused for one in self.ended.filters)

    def model_ms(self) -> float:
        """CPU that models, filters and links took."""
        return sum(count.cpu_ms for count in self.ended.stages.values()) + sum(
            one.cpu_ms for one in self.ended.filters
        )


@cache
def made() -> tuple[tempfile.TemporaryDirectory[str], Path]:
    """A folder of films, filters and a plan, while the process runs."""
    holder = tempfile.TemporaryDirectory()
    folder = Path(holder.name)
    for clip in TASKS:
        names = [name for name, of in CAMERAS.items() if of == clip]
        for number, name in enumerate(names):
            write_film(folder / f"{name}.mp4", clip, number / len(names))
    save_plan(folder)
    for model, clip in FILTERED:
        save_filter(folder / f"filter-{model}-{clip}", model, clip)
    return holder, folder


@cache
def ran(form: str, seconds: float) -> Heard:
    """One run."""
    heard = Heard()
    gateway = make_gateway(_settings(form), clock=VirtualClock(), lines=heard)
    try:
        gateway.run(seconds=seconds)
    finally:
        if not gateway.close():
            raise BenchError("a thread of the gateway did not end")
    heard.status = gateway.status
    return heard


def _settings(form: str) -> WatchSettings:
    counted = {"persons": "person", "cars": "car", "bottles": "bottle"}
    document: dict[str, Any] = {
        "folder": made()[1],
        "cameras": [
            {
                "name": name,
                "url": str(made()[1] / f"{name}.mp4"),
                "loop": True,
                "tasks": TASKS[clip],
            }
            for name, clip in CAMERAS.items()
        ],
        "gate": {
            "policy": "round_robin" if form == WHOLE else "ours",
            "budget_ms": WHOLE_MS if form == WHOLE else BUDGET_MS,
            "audit_share": 0.0,
        },
        "models": [
            {"name": OBJECTS, "labels": "coco"},
            {"name": FACES, "labels": ["face"]},
        ],
        "tasks": [
            {"name": name, "model": OBJECTS, "measure": "count", "classes": [label]}
            for name, label in counted.items()
        ]
        + [{"name": FACES, "model": FACES, "measure": "presence", "classes": ["face"]}],
        "ask": {"timezone": "UTC"},
    }
    for model in document["models"]:
        name = model["name"]
        model |= {"file": detector(name), "least_score": LEAST[name]}
    if form in (FILTERS, LINKS):
        document["filters"] = [
            {
                "name": f"{model} {clip}",
                "artifact": f"filter-{model}-{clip}",
                "model": model,
                "cameras": [name for name, n in CAMERAS.items() if n == clip],
            }
            for model, clip in FILTERED
            if (made()[1] / f"filter-{model}-{clip}").exists()
            and (form == FILTERS or model == OBJECTS)
        ]
    if form == LINKS:
        document["plan"] = {"artifact": "plan", "links": "links"}
    return WatchSettings.model_validate(document)


def agreement(form: str, seconds: float) -> float:
    """How long held answers are those of looking at everything; mean over cameras' tasks."""
    run, whole = ran(form, seconds), ran(WHOLE, seconds)
    keys = [(camera, task) for camera, clip in CAMERAS.items() for task in TASKS[clip]]
    shares = [np.mean(run.states(k, seconds) == whole.states(k, seconds)) for k in keys]
    return float(np.mean(shares))


def found_events(form: str, seconds: float) -> float:
    """F1 of events: the same answer of the same task within two seconds."""
    run, whole = ran(form, seconds).changes(), ran(WHOLE, seconds).changes()
    right = said = there = 0
    for key in {*run, *whole}:
        mine, left = run.get(key, []), list(whole.get(key, []))
        said, there = said + len(mine), there + len(left)
        for when, value in mine:
            near = [one for one in left if one[1] == value and abs(one[0] - when) <= NEAR_S]
            if near:
                left.remove(min(near, key=lambda one: abs(one[0] - when)))
                right += 1
    return 2 * right / max(1, said + there)


def questions(seconds: float) -> list[str]:
    """Of every camera: whether something was there in each minute, how often, how many."""
    singular = {"persons": "person", "cars": "car", "bottles": "bottle", FACES: "face"}
    asked = []
    for camera, clip in CAMERAS.items():
        for label in (singular[task] for task in TASKS[clip]):
            for minute in range(int(np.ceil(seconds / 60))):
                since, until = f"12:{minute:02d}", f"12:{minute + 1:02d}"
                asked.append(f"was a {label} in the {camera} between {since} and {until}?")
            asked.append(f"how many times did a {label} enter the {camera} today?")
            asked.append(f"was the {camera} empty in the last minute?")
            if label != "face":
                asked.append(f"what is the largest number of {label} in the {camera} today?")
    return asked


@cache
def answers(form: str, seconds: float) -> tuple[object, ...]:
    """What is answered to the questions, from the run's events alone, on the device."""
    with tempfile.TemporaryDirectory() as name:
        place = f"{name}/events.db"
        results = {"database": place, "keep_days": 3650}
        settings = _settings(form).model_dump() | {"results": results, "filters": []}
        asked = WatchSettings.model_validate(settings | {"plan": None})
        store = EventStore(database_url(place), keep_s=1e12)
        store.write(ran(form, seconds).documents, NOON)
        store.close()
        events = open_events(asked)
        try:
            ask = make_asker(asked, events, now=lambda: NOON + seconds)
            return tuple(_value(ask, question) for question in questions(seconds))
        finally:
            events.close()


def _value(ask: Callable[[str], Any], question: str) -> object:
    try:
        return ask(question).value
    except TripartyError as error:
        raise BenchError(f"'{question}' is not understood: {error.message}") from error


def same_answers(form: str, seconds: float) -> float:
    """Share of questions whose answer is that of looking at everything."""
    pairs = zip(answers(form, seconds), answers(WHOLE, seconds), strict=True)
    return float(np.mean([one == other for one, other in pairs]))


def filter_rate(form: str, seconds: float) -> float:
    """Share of frames that filters kept from models."""
    filters = ran(form, seconds).ended.filters
    kept = sum(one.filtered + one.reused for one in filters)
    return kept / max(1, kept + sum(one.passed for one in filters))


def _over(figure: Callable[[Heard], float]) -> Callable[[str, float], float]:
    """A figure over that of the site where everything is looked at."""
    return lambda form, seconds: figure(ran(form, seconds)) / figure(ran(WHOLE, seconds))


MEASURED: Mapping[str, tuple[Callable[[str, float], float], str, str, float | None]] = {
    "decode CPU over all": (_over(lambda run: run.ended.measured_ms), "ratio", "lower", None),
    "filter rate": (filter_rate, "share", "higher", None),
    "calls of models over all": (_over(Heard.looks), "ratio", "lower", None),
    "CPU of models, filters and links over all": (
        _over(Heard.model_ms),
        "ratio",
        "lower",
        None,
    ),
    "held answers as with all": (agreement, "share", "higher", 0.9),
    "events as with all, F1": (found_events, "share", "higher", None),
    "questions answered as with all": (same_answers, "share", "higher", None),
}


def _case(form: str, what: str) -> Case:
    figure, unit, better, target = MEASURED[what]

    @case(
        f"{len(CAMERAS)} cameras, {form}: {what}",
        unit=unit,
        better="lower" if better == "lower" else "higher",
        target=target,
        reference="every frame decoded and looked at by both models",
    )
    def measured(effort: Effort) -> Iterator[float]:
        yield figure(form, QUICK_SECONDS if effort.quick else SECONDS)

    return measured


BESIDE: tuple[Case, ...] = tuple(
    _case(form, what)
    for form in WITH
    for what in MEASURED
    if form != GATE or what != "filter rate"
)
"""The cases, for the suite."""
