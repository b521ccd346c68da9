"""`developer links plan`: what scripts rely on, and folders that devices can read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_links import NUMBER, times
from typer.testing import CliRunner

from triparty.common.edge_models import EdgeModel
from triparty.common.errors import ManifestError, SettingsError
from triparty.common.links.folder import save_links
from triparty.common.links.planning.costs import Cost, costs_bytes, read_costs
from triparty.common.links.planning.folder import PlanFolder
from triparty.common.links.recorded import Recorded, check_recorded
from triparty.developer.cli import app

COSTS = {"people": Cost(10.0, 5.0, 0.1), "cars": Cost(30.0, 20.0, 0.2), "dogs": Cost(5.0, 2.0)}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Cars are twice as many as people, dogs are nobody's business."""
    people = np.arange(50, dtype=np.float32)[:, None]
    dogs = np.random.default_rng(0).integers(0, 50, (50, 1)).astype(np.float32)
    outputs = {"people": people, "cars": 2 * people, "dogs": dogs}
    check_recorded(dict.fromkeys(outputs, NUMBER), outputs).save(tmp_path / "recorded")
    for name, factors in (
        ("cars", {"people": 2.0, "dogs": 0.0}),
        ("people", {"cars": 0.5}),
        ("dogs", {"people": 1.0}),
    ):
        save_links(times(name, factors), tmp_path / "links" / name)
    (tmp_path / "costs.json").write_bytes(costs_bytes(COSTS))
    return tmp_path


def run(folder: Path, *arguments: str) -> Any:
    words = ["links", "plan", str(folder / "links"), str(folder / "recorded")]
    words += ["--costs", str(folder / "costs.json"), "--json", *arguments]
    result = CliRunner().invoke(app, words)
    if result.exception is not None:
        raise result.exception
    return json.loads(result.stdout)


def test_a_plan_says_what_scripts_rely_on_and_is_a_folder(folder: Path) -> None:
    told = run(folder, "--memory-mib", "16", "--output", str(folder / "plan"))
    assert sorted(told["active"]) == ["dogs", "people"]
    assert told["predicted"].keys() == {"cars"}
    assert told["predicted"]["cars"]["from"] == ["people", "dogs"]
    assert told["cost"]["memory_mib"] == pytest.approx(15.0, abs=0.01)
    assert told["budget"] == {"memory_mib": 16.0}
    assert 0.6 < told["expected_accuracy"] < 0.7  # the mean of two links, one of which is wrong
    opened = PlanFolder.open(folder / "plan")
    assert sorted(opened.plan.active) == ["dogs", "people"]
    assert opened.costs == COSTS
    assert opened.budget.memory_mib == 16.0


def test_a_part_of_the_rows_is_looked_at(folder: Path) -> None:
    """Of the last rows cars are not twice as many as people; of the others they are."""
    whole = Recorded.open(folder / "recorded")
    cars = whole.outputs["cars"].copy()
    cars[40:] += 9
    outputs = {**whole.outputs, "cars": cars}
    check_recorded(whole.specs, outputs).save(folder / "recorded")
    words = ("--memory-mib", "36")
    told = run(folder, *words, "--rows", ":40")
    assert sorted(told["active"]) == ["cars", "dogs"]
    assert told["predicted"]["people"]["quality"] > 0.9
    told = run(folder, *words, "--rows", "-10:")
    assert all(one["quality"] < 0.2 for one in told["predicted"].values())
    for rows, says in (("5", "expected A:B"), ("9:3", "there are none, of 50"), ("a:", "A:B")):
        with pytest.raises(SettingsError, match=says):
            run(folder, *words, "--rows", rows)


def test_links_take_their_time(folder: Path) -> None:
    assert run(folder, "--latency-ms", "7.5")["cost"]["latency_ms"] == pytest.approx(7.2)
    assert run(folder, "--latency-ms", "7.1")["active"] != ["people", "dogs"]
    both = run(folder, "--latency-ms", "100", "--memory-mib", "100", "--method", "greedy")
    assert both["predicted"] == {}
    assert both["expected_accuracy"] == 1.0


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "needs a budget of memory or latency"),
        (("--memory-mib", "1", "--method", "best"), "method 'best': expected one of"),
        (("--memory-mib", "1", "--publish", "yard"), "--publish needs --output"),
    ],
)
def test_what_cannot_be_planned_is_refused(
    folder: Path, arguments: tuple[str, ...], says: str
) -> None:
    with pytest.raises(SettingsError, match=says):
        run(folder, *arguments)


def test_a_model_without_a_cost_is_named(folder: Path) -> None:
    (folder / "costs.json").write_bytes(costs_bytes({"people": Cost()}))
    with pytest.raises(SettingsError, match="no cost of the model 'cars'"):
        run(folder, "--memory-mib", "1")
    (folder / "costs.json").write_text('{"people": {"memory": 1}}')
    with pytest.raises(ManifestError, match="must have numbers for some of memory_mib"):
        read_costs(folder / "costs.json")


def test_a_file_becomes_a_model_of_the_library(folder: Path) -> None:
    (folder / "people.onnx").write_bytes(b"network")
    words = ["links", "library", str(folder / "people.onnx"), "--name", "people"]
    words += ["--recorded", str(folder / "recorded"), "--costs", str(folder / "costs.json")]
    result = CliRunner().invoke(app, [*words, "--output", str(folder / "people"), "--json"])
    assert result.exception is None
    assert EdgeModel.open(folder / "people") == EdgeModel(NUMBER, COSTS["people"])
    assert (folder / "people" / "model.onnx").read_bytes() == b"network"
