"""Recording what all models say, before there is a plan: aligned rows, costs, whole files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_links import NUMBER
from moving_squares import RATE, is_there, pictures, write_clip
from watched import Kept, gateway, settings_of

from triparty.common.errors import DatasetError, SettingsError
from triparty.common.links.planning.costs import Cost, read_costs
from triparty.common.links.recorded import SPECS_FILE, TABLE_FILE, Recorded
from triparty.common.links.specs import Vec, specs_bytes
from triparty.device.gate.traces import Task
from triparty.device.gateway.models import FunctionStage
from triparty.device.gateway.planning import LinkStage, PlannedStage
from triparty.device.gateway.plans import make_planner
from triparty.device.gateway.predictions import form_of, row_of, spec_of
from triparty.device.gateway.records import COSTS_FILE, Records
from triparty.device.gateway.settings import WatchSettings
from triparty.device.gateway.watching import check_settings, open_settings

FRAMES = 60
NAMES = ("people", "cars", "dogs")


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("squares") / "a.mp4", pictures(FRAMES, seed=7))


@dataclass
class Counter:
    """Says how many frames it has looked at, so that rows tell which frame they are of."""

    looks: int = 0
    broken: bool = False

    def __call__(self, rgb: Any) -> float:
        self.looks += 1
        if self.broken:
            raise ValueError("broken")
        return float(rgb.astype(np.int64).sum() % 997)


def configured(folder: Path, clip: Path, **plan: Any) -> WatchSettings:
    """People and cars are asked, cars by one camera alone; nobody asks for dogs."""
    return settings_of(
        folder,
        {"a": clip, "b": {"url": str(clip), "tasks": ["people-there"]}},
        models=[{"name": name, "python": "m:f"} for name in NAMES],
        tasks=[{"name": f"{one}-there", "model": one, "looks": 1} for one in NAMES[:2]],
        defaults={"whole": True, "looks_per_s": RATE},
        plan={"records": folder / "recorded", "profiled_share": 0.1, **plan},
    )


def watched(settings: WatchSettings, functions: Mapping[str, Any]) -> tuple[Any, list[Any]]:
    planner = make_planner(settings, check_settings(settings))
    assert planner is not None
    stages: list[Any] = [
        PlannedStage(name, partial(FunctionStage, name, functions[name]), planner)
        for name in functions
    ]
    kept = Kept()
    stages.append(LinkStage(planner))
    with gateway(settings, stages=stages, kept=kept, planner=planner, wall=lambda: 1e9) as one:
        one.run()
        status = one.status
    return status, kept.of("result")


def test_what_all_models_said_of_a_share_of_frames_is_recorded(
    clip: Path, tmp_path: Path
) -> None:
    """All say the same of the same pixels, and other frames have other pixels."""
    functions = {name: Counter() for name in NAMES}
    status, results = watched(configured(tmp_path, clip), functions)
    table = Recorded.open(tmp_path / "recorded")
    assert tuple(table.specs) == NAMES
    assert len(table) == pytest.approx(0.1 * 2 * FRAMES, abs=2)
    assert len(np.unique(table.outputs["people"])) > len(table) // 2
    for name in NAMES[1:]:
        assert (table.outputs[name] == table.outputs["people"]).all()
    costs = read_costs(tmp_path / "recorded" / COSTS_FILE)
    assert costs.keys() == set(NAMES)
    assert all(cost.latency_ms > 0 for cost in costs.values())
    assert functions["people"].looks == 2 * FRAMES
    assert FRAMES <= functions["cars"].looks < 2 * FRAMES
    assert len(table) <= functions["dogs"].looks < 2 * FRAMES
    assert all(each["predicted"] == {} for each in results)
    assert {None} != {each["answers"].get("people-there") for each in results}
    assert status.plan.active == ("people", "cars")
    assert status.plan.predicted == ()
    assert (status.plan.refused, status.plan.failures) == (None, {})


def test_a_second_run_goes_on_where_the_first_ended_and_the_oldest_go(
    clip: Path, tmp_path: Path
) -> None:
    settings = configured(tmp_path, clip, profiled_share=0.05)
    watched(settings, {name: Counter() for name in NAMES})
    first = Recorded.open(tmp_path / "recorded")
    watched(settings, dict.fromkeys(NAMES, is_there))
    both = Recorded.open(tmp_path / "recorded")
    assert len(both) > len(first)
    assert (both.outputs["dogs"][: len(first)] == first.outputs["dogs"]).all()
    assert set(np.unique(both.outputs["dogs"][len(first) :])) <= {0.0, 1.0}
    cut = configured(tmp_path, clip, profiled_share=0.05, most_records=len(first))
    watched(cut, dict.fromkeys(NAMES, is_there))
    last = Recorded.open(tmp_path / "recorded")
    assert len(last) == len(first)
    assert last.outputs["dogs"].max() <= 1.0


def test_frames_on_which_a_model_fails_are_not_recorded_and_the_others_are_answered(
    clip: Path, tmp_path: Path
) -> None:
    functions = {name: Counter() for name in NAMES} | {"dogs": Counter(broken=True)}
    status, results = watched(configured(tmp_path, clip), functions)
    assert not (tmp_path / "recorded").exists()
    assert status.plan.failures == {"dogs": 1}
    assert functions["people"].looks == 2 * FRAMES
    assert results


def test_rows_stay_aligned_where_a_model_fails_now_and_then(clip: Path, tmp_path: Path) -> None:
    def timid(rgb: Any) -> float:
        if is_there(rgb):
            raise ValueError("too bright")
        return Counter()(rgb)

    functions = {name: Counter() for name in NAMES} | {"cars": timid}
    settings = configured(tmp_path, clip, profiled_share=1.0, retry_s=0.0)
    status, _ = watched(settings, functions)
    table = Recorded.open(tmp_path / "recorded")
    assert (table.outputs["cars"] == table.outputs["people"]).all()
    assert 0 < len(table) < 2 * FRAMES
    assert status.plan.refused is None
    assert status.plan.failures["cars"] > 0


def _rows(first: int, count: int) -> dict[str, Any]:
    values = [np.array([float(first + n)], np.float32) for n in range(count)]
    return {"a": values, "b": [2 * value for value in values]}


SPECS = {"a": NUMBER, "b": NUMBER}


@pytest.mark.parametrize("file", [SPECS_FILE, TABLE_FILE, COSTS_FILE])
@pytest.mark.parametrize("before", [0, 3])
def test_a_crash_while_it_writes_leaves_what_was_there_or_what_is_new(
    file: str, before: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import os

    folder = tmp_path / "recorded"
    records = Records(folder, SPECS, most=100)
    if before:
        records.append(_rows(0, before), {"a": Cost(1.0), "b": Cost(2.0)})
    replace = os.replace

    def crash(source: Any, target: Any) -> None:
        if Path(target).name == file:
            raise KeyboardInterrupt
        replace(source, target)

    monkeypatch.setattr(os, "replace", crash)
    with pytest.raises(KeyboardInterrupt):
        records.append(_rows(before, 4), {"a": Cost(3.0)})
    monkeypatch.undo()
    again = Records(folder, SPECS, most=100)
    if (folder / TABLE_FILE).exists():
        table = Recorded.open(folder)
        assert len(table) in (before, before + 4)
        assert (table.outputs["b"] == 2 * table.outputs["a"]).all()
    again.append(_rows(50, 1), {"b": Cost(4.0)})
    assert Recorded.open(folder).outputs["a"][-1] == 50
    assert read_costs(folder / COSTS_FILE)["b"] == Cost(4.0)


def test_costs_of_models_that_did_not_run_this_time_stay(tmp_path: Path) -> None:
    records = Records(tmp_path, SPECS, most=100)
    records.append(_rows(0, 1), {"a": Cost(1.0), "b": Cost(2.0)})
    records.append(_rows(1, 1), {"a": Cost(3.0)})
    assert read_costs(tmp_path / COSTS_FILE) == {"a": Cost(3.0), "b": Cost(2.0)}


def test_records_of_other_models_are_refused(tmp_path: Path) -> None:
    Records(tmp_path, SPECS, most=9).append(_rows(0, 1), {})
    with pytest.raises(SettingsError, match=r"first 'b'.*give another folder"):
        Records(tmp_path, {"a": NUMBER}, most=9)
    (tmp_path / TABLE_FILE).write_bytes(b"no table")
    with pytest.raises(DatasetError):
        Records(tmp_path, SPECS, most=9)


@pytest.mark.parametrize(
    ("plan", "says"),
    [
        ({"records": None, "profiled_share": 0.5}, "give artifact, a plan; or records"),
        ({"every_frames": 10}, "every_frames is for a plan: give its artifact, or leave"),
        ({"links": "links"}, "links is for a plan"),
        ({"profiled_share": 0.0}, "greater than 0"),
        ({"most_records": 1}, "greater than or equal to 2"),
    ],
)
def test_settings_that_cannot_be_are_refused(
    plan: dict[str, Any], says: str, clip: Path, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=says):
        configured(tmp_path, clip, **plan)


def test_a_check_opens_what_was_recorded_and_writes_nothing(clip: Path, tmp_path: Path) -> None:
    settings = configured(tmp_path, clip)
    models = tuple(one.model_copy(update={"python": "math:sin"}) for one in settings.models)
    settings = settings.model_copy(update={"models": models})
    open_settings(settings)
    assert not (tmp_path / "recorded").exists()
    Records(tmp_path / "recorded", SPECS, most=9).append(_rows(0, 1), {})
    with pytest.raises(SettingsError, match="give another folder"):
        open_settings(settings)
    alone = settings.model_copy(update={"models": models[:1], "tasks": ()})
    with pytest.raises(SettingsError, match="need two"):
        open_settings(alone)


def test_specs_in_the_folder_say_what_outputs_are(clip: Path, tmp_path: Path) -> None:
    (tmp_path / "recorded").mkdir()
    specs = dict.fromkeys(NAMES, NUMBER) | {"dogs": Vec("single-label", 2)}
    (tmp_path / "recorded" / SPECS_FILE).write_bytes(specs_bytes(specs))
    watched(configured(tmp_path, clip), dict.fromkeys(NAMES, is_there))
    table = Recorded.open(tmp_path / "recorded")
    assert table.specs == specs
    assert (table.outputs["dogs"][:, 1] == table.outputs["people"][:, 0]).all()


def test_outputs_follow_from_labels_and_tasks() -> None:
    labels = ("person", "bicycle", "car")
    persons, cars = Task("p", "m", "count", (0,)), Task("c", "m", "presence", (2,))
    assert spec_of(labels, [cars, persons]).labels == ("person", "car")
    assert spec_of(labels, [cars, Task("all", "m", "count", ())]).labels == labels
    assert spec_of(labels, []) == Vec("regression", 3, labels, 0.5)
    assert spec_of((), [persons]).labels == ("0",)
    assert spec_of((), []) == Vec("regression", 1, tolerance=0.5)
    assert spec_of((), [Task("v", "m", "value", (), 0.2)]).tolerance == 0.1
    form = form_of("m", spec_of(labels, []), labels)
    with pytest.raises(DatasetError, match="returned a number: expected objects"):
        row_of(form, 2.0)
    assert row_of(form, None).tolist() == [0.0, 0.0, 0.0]
