"""A plan before cameras: chosen models look, links predict the rest, and everything says so."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_links import linear_link, times
from moving_squares import RATE, is_there, pictures, write_clip
from planned import saved_plan
from watched import Kept, gateway, settings_of

from triparty.common.errors import SettingsError, TransportError
from triparty.common.links.ensemble import Ensemble, Member
from triparty.common.links.planning.costs import Budget
from triparty.common.links.planning.folder import PlanFolder
from triparty.common.links.recorded import Recorded
from triparty.common.links.specs import Vec
from triparty.device.filters.results import NothingDetected, Unchanged
from triparty.device.gate.detectors import Detections
from triparty.device.gate.traces import Task
from triparty.device.gateway.clock import VirtualClock
from triparty.device.gateway.metrics import MetricsServer
from triparty.device.gateway.models import FunctionStage
from triparty.device.gateway.planning import (
    Choice,
    LinkStage,
    PlannedStage,
    Planner,
    _stood_in,
)
from triparty.device.gateway.plans import make_planner
from triparty.device.gateway.predictions import (
    Predicted,
    RowForm,
    check_task,
    form_of,
    predicted_answer,
    row_of,
)
from triparty.device.gateway.settings import ModelSettings, WatchSettings
from triparty.device.gateway.stages import Reused
from triparty.device.gateway.status import document, line
from triparty.device.gateway.watching import check_settings, make_gateway
from triparty.device.links.loading import Loading
from triparty.device.links.nodes import Node
from triparty.device.links.selecting import Reselection

FRAMES = 60
TASKS = tuple(
    {"name": f"{name}-there", "model": name, "measure": "presence", "looks": 1, "hold_s": 0}
    for name in ("people", "cars")
)
BOTH = {
    "cars": times("cars", {"people": 2.0}),
    "people": times("people", {"cars": 0.5}, expected=0.7),
}


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("squares") / "a.mp4", pictures(FRAMES, seed=7))


@dataclass
class Function:
    """Counts loads and looks; a square is so many things."""

    times: float
    loads: int = 0
    looks: int = 0
    broken: bool = False

    def __call__(self, rgb: Any) -> float:
        self.looks += 1
        if self.broken:
            raise ValueError("broken")
        return self.times * is_there(rgb)


@dataclass
class Watched:
    """What came of watching."""

    status: Any
    results: list[Any]
    functions: dict[str, Function] = field(default_factory=dict)

    def answers(self, name: str) -> dict[float, Any]:
        return {each["time"]: each["answers"].get(name) for each in self.results}


def configured(folder: Path, cameras: Mapping[str, Any], **more: Any) -> WatchSettings:
    plan = {"artifact": folder / "plan", "links": folder / "links", **more.pop("plan", {})}
    return settings_of(
        folder,
        dict(cameras),
        models=[{"name": name, "python": "m:f"} for name in ("people", "cars")],
        tasks=more.pop("tasks", TASKS),
        defaults={"whole": True, "looks_per_s": RATE},
        plan=plan if plan["artifact"] is not None else None,
        **more,
    )


def watched(settings: WatchSettings, **functions: Function) -> Watched:
    made = {"people": Function(1.0), "cars": Function(2.0), **functions}

    def load(name: str) -> FunctionStage:
        made[name].loads += 1
        return FunctionStage(name, made[name])

    planner = make_planner(settings, check_settings(settings))
    if planner is None:
        stages: list[Any] = [load(name) for name in made]
    else:
        stages = [PlannedStage(name, partial(load, name), planner) for name in made]
        stages.append(LinkStage(planner))
    kept = Kept()
    with gateway(settings, stages=stages, kept=kept, planner=planner, wall=lambda: 1e9) as one:
        one.run()
        status = one.status
    return Watched(status, kept.of("result"), made)


def test_the_other_model_is_predicted_and_results_status_and_metrics_say_so(
    clip: Path, tmp_path: Path
) -> None:
    import httpx

    whole = watched(configured(tmp_path, {"a": clip}, plan={"artifact": None}))
    made = watched(configured(saved_plan(tmp_path, ("people",), BOTH), {"a": clip}))
    assert made.answers("people-there") == whole.answers("people-there")
    assert made.answers("cars-there") == whole.answers("cars-there")
    assert set(made.answers("cars-there").values()) == {True, False}
    assert (made.functions["people"].looks, made.functions["cars"].loads) == (FRAMES, 0)
    for each in made.results:
        assert each["seen"].keys() == {"people"}
        (told,) = each["predicted"].values()
        assert told["confidence"] == 0.9
        assert told["from"] == ["people"]
        assert told["value"] == pytest.approx([2 * each["seen"]["people"]], abs=2e-3)
    status = made.status.plan
    assert (status.active, status.predicted) == (("people",), ("cars",))
    assert (status.measured, status.predictions) == ({"people": FRAMES}, {"cars": FRAMES})
    told = document(made.status)["plan"]
    assert told["confidence"] == {"cars": 0.9}
    assert told["sources"] == {"cars": ["people"]}
    assert told["planned"] == told["budget"] == {"memory_mib": 1.0, "latency_ms": None}
    assert "runs people, predicts cars" in line(made.status)
    server = MetricsServer(lambda: made.status, host="127.0.0.1", port=0)
    try:
        text = httpx.get(f"http://127.0.0.1:{server.port}/metrics").text
    finally:
        server.stop()
    for metric in (
        'plan_active{model="people"} 1.0',
        'plan_active{model="cars"} 0.0',
        f'plan_measured_total{{model="people"}} {float(FRAMES)}',
        f'plan_predictions_total{{model="cars"}} {float(FRAMES)}',
        'plan_confidence{model="cars"} 0.',
        "plan_expected_accuracy 0.95",
    ):
        assert f"triparty_device_{metric}" in text


def test_a_camera_that_asks_only_the_predicted_model_is_answered(
    clip: Path, tmp_path: Path
) -> None:
    settings = configured(
        saved_plan(tmp_path, ("people",), BOTH),
        {"a": {"url": str(clip), "tasks": ["cars-there"]}},
    )
    made = watched(settings)
    assert set(made.answers("cars-there").values()) == {True, False}
    assert made.status.plan.unanswered == {}


def test_a_model_that_fails_is_predicted_and_the_others_go_on(
    clip: Path, tmp_path: Path
) -> None:
    folder = saved_plan(tmp_path, ("people", "cars"), BOTH)
    settings = configured(folder, {"a": clip})
    made = watched(settings, cars=Function(2.0, broken=True))
    assert made.status.stages["cars"].errors == 0
    assert set(made.answers("cars-there").values()) == {True, False}
    assert {each["predicted"]["cars"]["failure"] for each in made.results} == {
        "ValueError: broken"
    }
    assert made.functions["cars"].looks == 1  # then it is left alone
    assert made.status.plan.failing == {"cars": "ValueError: broken"}
    assert "FAILING: cars" in line(made.status)


def test_nothing_is_made_up_where_no_source_looks(clip: Path, tmp_path: Path) -> None:
    folder = saved_plan(tmp_path, ("people",), BOTH)
    made = watched(configured(folder, {"a": clip}), people=Function(1.0, broken=True))
    assert made.status.plan.unanswered == {"people": FRAMES, "cars": FRAMES}
    assert set(made.answers("cars-there").values()) == {None}
    assert all(each["predicted"] == {} for each in made.results)


def _reselecting(**more: Any) -> dict[str, Any]:
    return {"every_frames": 30, "least_profiled": 16, "period_s": 1e6, **more}


def test_models_are_chosen_anew_and_what_all_said_is_recorded(
    clip: Path, tmp_path: Path
) -> None:
    """The plan runs `cars` alone, but they do not predict `people`, and both fit."""
    links = {**BOTH, "people": times("people", {"cars": 3.0})}
    folder = saved_plan(tmp_path, ("cars",), links, memory_mib=100.0)
    plan = _reselecting(latency_ms=1e4, memory_mib=1e4, records="records")
    made = watched(configured(folder, {"a": clip}, plan=plan))
    status = made.status.plan
    assert status.refused is None
    assert status.profiles >= 1
    assert set(status.active) == {"people", "cars"}
    assert status.switches == 1
    table = Recorded.open(tmp_path / "records")
    assert (table.outputs["cars"] == 2 * table.outputs["people"]).all()
    assert len(table) >= 16
    assert status.costs.keys() == {"people", "cars"}
    assert status.budget == (1e4, 1e4), "that of the settings, from now on"
    assert None not in status.planned


def test_a_budget_that_shrank_evicts(clip: Path, tmp_path: Path) -> None:
    folder = saved_plan(tmp_path, ("people", "cars"), BOTH, memory_mib=100.0)
    made = watched(configured(folder, {"a": clip}, plan=_reselecting(latency_ms=0.0)))
    assert made.status.plan.active == ()
    assert made.status.plan.unanswered["cars"] > 0
    assert made.functions["people"].looks < FRAMES


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"artifact": "absent"}, "is no plan: make one with"),
        ({"links": "absent"}, "there are no links to 'cars'"),
    ],
)
def test_a_plan_that_cannot_be_is_refused(
    clip: Path, tmp_path: Path, change: dict[str, Any], says: str
) -> None:
    settings = configured(saved_plan(tmp_path, ("people",), BOTH), {"a": clip}, plan=change)
    with pytest.raises(SettingsError, match=says):
        make_planner(settings, check_settings(settings))


def test_a_plan_of_models_that_are_not_configured_is_refused(
    clip: Path, tmp_path: Path
) -> None:
    links = {**BOTH, "dogs": times("dogs", {"people": 1.0})}
    settings = configured(saved_plan(tmp_path, ("people",), links), {"a": clip})
    with pytest.raises(SettingsError, match="names the model 'dogs': add a"):
        make_planner(settings, check_settings(settings))
    with pytest.raises(ValueError, match="records need every_frames"):
        configured(tmp_path, {"a": clip}, plan={"records": "r"})


def test_a_saved_plan_is_read_as_it_was_and_a_changed_one_is_refused(tmp_path: Path) -> None:
    folder = saved_plan(tmp_path, ("people",), BOTH) / "plan"
    opened = PlanFolder.open(folder)
    opened.save(tmp_path / "again")
    assert PlanFolder.open(tmp_path / "again") == opened
    file = folder / "plan.json"
    for old, new, says in (
        (b'"exact"', b'"guess"', "unknown method"),
        (b'"active":["people"]', b'"active":["dogs"]', "names each of its models once"),
        (b'"cars":["people"]', b'"cars":["cars"]', "predicted from models that do not run"),
    ):
        text = file.read_bytes()
        assert old in text
        file.write_bytes(text.replace(old, new))
        with pytest.raises(Exception, match=says):
            PlanFolder.open(folder)
        file.write_bytes(text)


def test_what_a_filter_says_stands_for_what_its_model_saw() -> None:
    forms = {name: RowForm("number", (), 1) for name in ("a", "b", "c")}
    said = {"a": NothingDetected("t"), "b": Reused(3.0), "c": Unchanged("t"), "d": Reused(1.0)}
    rows = _stood_in(forms, said)
    assert {name: row.tolist() for name, row in rows.items()} == {"a": [0.0], "b": [3.0]}


def test_a_model_that_is_only_profiled_is_let_go_after_each_batch(
    clip: Path, tmp_path: Path
) -> None:
    folder = saved_plan(tmp_path, ("people",), BOTH)
    made = watched(configured(folder, {"a": clip}, plan=_reselecting(least_gain=1.0)))
    cars = made.functions["cars"]
    assert cars.looks >= 16
    assert cars.loads > 1
    assert made.functions["people"].loads == 1
    assert made.status.plan.active == ("people",)


class Shelf:
    """A library that notes what it is asked for; it brings nothing before it may."""

    def __init__(self, error: Exception | None = None) -> None:
        self.wishes: list[frozenset[str]] = []
        self.may, self.error = threading.Event(), error

    def bring(self, names: Collection[str]) -> None:
        assert self.may.wait(10)
        self.wishes.append(frozenset(names))
        if self.error is not None:
            raise self.error


def _planner(shelf: Shelf) -> Planner:
    """Of two models that were run before, of which `people` runs though none fits any more."""
    number = Vec("regression", 1, tolerance=0.5)
    names = ("people", "cars")
    made = Planner(
        Choice(frozenset({"people"}), 0.9),
        {name: BOTH[name] for name in names},
        dict.fromkeys(names, number),
        dict.fromkeys(names, RowForm("number", (), 1)),
        reselection=Reselection(Budget(latency_ms=0.0), every=6, least=2),
        library=shelf,
    )
    for name in names:
        loading = Loading(Node(name, number, lambda: float), retry_s=0.0)
        loading.run(1.0)
        made.join(loading)
    return made


def _batches(planner: Planner, seen: Mapping[str, float], until: Callable[[], bool]) -> int:
    """Frames of which all models that look see so much, until something; how many."""
    for count in range(2000):
        if until():
            return count
        looks = planner.forms if planner.is_profiling else planner.active
        planner.end_batch([{name: seen[name] for name in looks}])
        time.sleep(0.002)
    raise AssertionError("it does not come")


def test_models_are_fetched_before_all_look_and_the_rest_evicted_after_it() -> None:
    shelf = Shelf()
    planner = _planner(shelf)
    seen = {"people": 1.0, "cars": 2.0}
    for _ in range(20):
        planner.end_batch([{"people": 1.0}])  # frames go on, and nothing is profiled
    assert not planner.is_profiling
    shelf.may.set()
    _batches(planner, seen, lambda: planner.is_profiling)
    assert shelf.wishes == [{"people", "cars"}]
    _batches(planner, seen, lambda: len(shelf.wishes) > 1)
    assert shelf.wishes[1] == planner.active == frozenset()
    assert planner.status.switches == 1
    _batches(planner, seen, lambda: len(shelf.wishes) > 2)
    assert shelf.wishes[2] == {"people", "cars"}, "a period later all models are needed again"


def test_where_models_cannot_be_fetched_the_old_choice_stays_and_is_told() -> None:
    shelf = Shelf(TransportError("the cloud is away"))
    shelf.may.set()
    planner = _planner(shelf)
    seen = {"people": 1.0, "cars": 5.0}
    _batches(planner, seen, lambda: planner.status.refused is not None)
    assert planner.status.refused == "the cloud is away"
    assert planner.active == {"people"}
    assert not planner.is_profiling
    before = len(shelf.wishes)
    shelf.error = None  # the next period tries again
    _batches(planner, seen, lambda: planner.is_profiling)
    assert len(shelf.wishes) == before + 1
    assert planner.status.refused is None


@pytest.mark.parametrize(
    ("plan", "says"),
    [(None, "give .plan."), ({"artifact": "plan"}, "is no pulled plan")],
)
def test_a_pulled_model_needs_a_pulled_plan(
    plan: Any, says: str, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRIPARTY_DEVICE_HOME", str(tmp_path / "home"))
    saved_plan(tmp_path, ("people",), BOTH)
    settings = configured(tmp_path, {"a": clip}, plan=plan or {"artifact": None})
    models = tuple(ModelSettings(name=one.name, pulled=True) for one in settings.models)
    settings = settings.model_copy(update={"models": models})
    with pytest.raises(SettingsError, match=says):
        make_planner(settings, check_settings(settings))


COUNTS = Vec("regression", 2, ("car", "person"), 0.5)


def _task(measure: Any, *classes: int) -> Task:
    return Task("t", "m", measure, classes)


def test_rows_are_counts_and_counts_are_answers() -> None:
    form = form_of("m", COUNTS, ("person", "bicycle", "car"))
    assert form.classes == (2, 0)
    seen = Detections(
        np.zeros((3, 4), np.float32), np.array([0, 0, 1], np.int32), np.ones(3, np.float32)
    )
    row = row_of(form, seen)
    assert row.tolist() == [0.0, 2.0]
    predicted = Predicted(form, row + np.float32(0.3), 0.5, ("s",))
    assert predicted_answer(_task("presence", 0), predicted) is True
    assert predicted_answer(_task("presence", 2), predicted) is False
    assert predicted_answer(_task("count"), predicted) == 2
    assert predicted_answer(_task("labels"), predicted) == (0,)
    assert predicted.told(("person", "bicycle", "car"))["value"] == {"car": 0.3, "person": 2.3}
    number = RowForm("number", (), 1)
    assert predicted_answer(_task("count"), Predicted(number, row_of(number, 1.7), 1, ())) == 2
    assert (
        predicted_answer(_task("value"), Predicted(number, row_of(number, 1.5), 1, ())) == 1.5
    )
    classes = form_of("m", Vec("single-label", 3), ())
    assert row_of(classes, 2.0).tolist() == [0, 0, 1]
    assert (
        predicted_answer(_task("value"), Predicted(classes, row_of(classes, 2.0), 1, ())) == 2
    )


def test_what_cannot_be_predicted_is_refused() -> None:
    form = form_of("m", COUNTS, ("person", "bicycle", "car"))
    with pytest.raises(SettingsError, match="measures boxes, which links cannot predict"):
        check_task(_task("boxes"), form)
    with pytest.raises(SettingsError, match="asks for class 1 of 'm'"):
        check_task(_task("count", 1), form)
    with pytest.raises(SettingsError, match="know the class 'car' of model 'm'"):
        form_of("m", COUNTS, ("person",))
    with pytest.raises(SettingsError, match="as localisation"):
        form_of("m", Vec("localisation", 5), ())


def test_real_detectors_under_a_plan(test_data: Path, tmp_path: Path) -> None:
    """The small detector looks at a real clip, and the large one is predicted from it."""
    person = Vec("regression", 1, ("person",), 0.5)
    member = Member("small", linear_link(person, person, 1.0))
    folder = saved_plan(
        tmp_path, ("small",), {"large": Ensemble("large", person, (member,), 0.8)}
    )
    detectors = test_data / "models" / "detectors"
    text = f"""
    [[cameras]]
    name = "hall"
    url = {json.dumps(str(test_data / "clips" / "one-by-one-person-detection.mp4"))}
    [defaults]
    whole = true
    looks_per_s = 2
    [[models]]
    name = "small"
    file = {json.dumps(str(detectors / "FastestDet.onnx"))}
    labels = "coco"
    [[models]]
    name = "large"
    file = {json.dumps(str(detectors / "yolox_nano.onnx"))}
    labels = "coco"
    [[tasks]]
    name = "anybody"
    model = "large"
    classes = ["person"]
    """
    answers = {}
    for name, plan in (("whole", ""), ("plan", '[plan]\nartifact = "plan"\nlinks = "links"')):
        (folder / f"{name}.toml").write_text(text + plan)
        kept = Kept()
        settings = WatchSettings.load(folder / f"{name}.toml")
        running = make_gateway(settings, clock=VirtualClock(), lines=kept)
        try:
            running.run(seconds=16)
        finally:
            assert running.close()
        answers[name] = {each["time"]: each["answers"]["anybody"] for each in kept.of("result")}
        if plan:
            assert all(each["seen"].keys() == {"small"} for each in kept.of("result"))
            assert running.status.plan is not None
            assert running.status.plan.predictions["large"] == len(answers[name])
    assert answers["whole"].keys() == answers["plan"].keys()
    assert len(answers["whole"]) > 20
    assert set(answers["whole"].values()) == {True, False}
    agree = [answers["whole"][time] == answers["plan"][time] for time in answers["whole"]]
    assert np.mean(agree) > 0.8
