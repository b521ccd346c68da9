"""Chosen models run once for an input, the rest is predicted, and every result says which."""

from __future__ import annotations

import mmap
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_links import NUMBER, times

from triparty.common.errors import DatasetError, SettingsError, StateError
from triparty.common.links.planning.costs import Budget
from triparty.common.links.planning.refreshing import Refresh
from triparty.common.links.planning.reselection import Hysteresis
from triparty.common.links.specs import Vec
from triparty.device.links.loading import FailedError, Loading
from triparty.device.links.nodes import Node, class_row, onnx_node, torch_node
from triparty.device.links.results import Origin
from triparty.device.links.runtime import Links
from triparty.device.links.selecting import Reselection


class Doubling:
    """Counts how often it is loaded and run; an input times a factor."""

    def __init__(self, name: str, factor: float = 1.0, *, memory_mib: float = 1.0) -> None:
        self.name, self.factor, self.memory_mib = name, factor, memory_mib
        self.loads = self.calls = 0
        self.broken = self.absent = False

    def load(self) -> Any:
        if self.absent:
            raise OSError("no such file")
        self.loads += 1
        return self.call

    def call(self, value: float) -> float:
        self.calls += 1
        if self.broken:
            raise ValueError("bad input")
        return self.factor * value

    @property
    def node(self) -> Node:
        return Node(
            self.name, NUMBER, self.load, decode=lambda row: float(row[0]),
            memory_mib=self.memory_mib,
        )  # fmt: skip


def _made(**options: Any) -> tuple[Links, Doubling, Doubling]:
    """`people` runs, `cars` is twice as many and is predicted; and the other way round."""
    ensembles = {
        "cars": times("cars", {"people": 2.0}),
        "people": times("people", {"cars": 0.5}, expected=0.7),
    }
    links = Links(ensembles, active=options.pop("active", ["people"]), **options)
    people, cars = Doubling("people"), Doubling("cars", 2.0)
    links.add(people.node)
    links.add(cars.node)
    return links, people, cars


def test_the_chosen_model_runs_once_and_the_other_is_predicted_and_never_loaded() -> None:
    links, people, cars = _made()
    frame = np.float64(4.0)
    results = links.results(frame)
    assert (results["people"].output, results["people"].origin) == (4.0, Origin.MEASURED)
    assert results["people"].confidence == 1.0
    predicted = results["cars"]
    assert predicted.output == pytest.approx(8.0, abs=1e-3)
    assert (predicted.origin, predicted.sources) == (Origin.PREDICTED, ("people",))
    assert predicted.confidence == pytest.approx(0.9)
    assert links.result("cars", frame) is predicted
    assert (people.loads, people.calls, cars.loads) == (1, 1, 0)
    links.results(np.float64(4.0))  # equal, but another input
    assert people.calls == 2
    assert links.status().measured == {"people": 2}
    assert links.status().predicted == {"cars": 2}


def test_existing_code_calls_its_function_as_before() -> None:
    links = Links({"cars": times("cars", {"people": 3.0})}, active=["people"])

    @links.node("people", NUMBER)
    def people(value: float) -> float:
        """Counts them."""
        return value

    @links.node("cars", NUMBER, decode=lambda row: round(float(row[0])))
    def cars(value: float) -> float:
        raise AssertionError("it is not chosen")

    assert people.__doc__ == "Counts them."
    again = Links({}, active=["people"]).node("people", NUMBER)(people)
    assert again(7.0) == 7.0  # a node of other links is a function like any
    assert people(5.0) == 5.0
    assert cars(5.0) == 15
    assert cars.result(5.0).origin is Origin.PREDICTED


def test_a_model_that_fails_is_predicted_and_the_result_says_so() -> None:
    now = [0.0]
    links, _people, cars = _made(active=["people", "cars"], retry_s=10.0, clock=lambda: now[0])
    assert links.results(1.0)["cars"].origin is Origin.MEASURED
    cars.broken = True
    result = links.result("cars", 2.0)
    assert (result.origin, result.sources) == (Origin.PREDICTED, ("people",))
    assert result.output == pytest.approx(4.0, abs=1e-3)
    assert result.failure == "ValueError: bad input"
    assert links.status().failing == {"cars": "ValueError: bad input"}
    cars.broken, calls = False, cars.calls
    assert links.result("cars", 3.0).failure is not None  # it is left alone for a while
    assert cars.calls == calls
    now[0] = 10.0
    assert links.result("cars", 4.0).origin is Origin.MEASURED
    assert links.status().failing == {}
    assert links.status().failures == {"cars": 1}


def test_a_model_that_does_not_load_is_predicted() -> None:
    links, _, cars = _made(active=["people", "cars"])
    cars.absent = True
    assert links.load() == {"cars": "OSError: no such file"}
    result = links.result("cars", 1.0)
    assert (result.origin, result.failure) == (Origin.PREDICTED, "OSError: no such file")


def test_an_output_that_is_none_counts_as_a_failure() -> None:
    links, _, cars = _made(active=["people", "cars"])
    cars.factor = np.nan
    assert "not finite" in str(links.result("cars", 1.0).failure)


def test_if_all_fail_nothing_is_made_up() -> None:
    links, people, _ = _made()
    people.broken = True
    with pytest.raises(StateError, match=r"'cars' is not run, and none of .* runs: people"):
        links.result("cars", 1.0)
    with pytest.raises(StateError, match=r"'people' failed \(ValueError: bad input\)"):
        links.result("people", 1.0)
    with pytest.raises(SettingsError, match="neither a model 'dogs' nor links"):
        links.result("dogs", 1.0)


def test_only_what_a_result_takes_is_run() -> None:
    links, people, cars = _made(active=["people", "cars"])
    links.result("people", 1.0)
    assert (people.calls, cars.calls) == (1, 0)


def test_links_of_another_output_are_refused() -> None:
    links = Links({"cars": times("cars", {"people": 2.0})}, active=["people"])
    with pytest.raises(SettingsError, match="links know another output of 'people'"):
        links.add(Node("people", Vec("regression", 2), lambda: lambda value: value))
    links.add(Doubling("people").node)
    with pytest.raises(SettingsError, match="a model 'people' already"):
        links.add(Doubling("people").node)


def test_a_target_without_a_model_is_predicted_too() -> None:
    links = Links({"label": times("label", {"people": 2.0})}, active=["people"])
    links.add(Doubling("people").node)
    assert links.results(3.0)["label"].output == pytest.approx([6.0], abs=1e-3)


def test_outputs_are_recorded_for_training_in_the_form_of_training(tmp_path: Path) -> None:
    links, _people, cars = _made()
    with pytest.raises(DatasetError):
        links.recorded()
    links.profile([1.0, 2.0, 3.0])
    table = links.recorded()
    assert table.outputs["people"].tolist() == [[1.0], [2.0], [3.0]]
    assert table.outputs["cars"].tolist() == [[2.0], [4.0], [6.0]]
    assert cars.loads == 1
    assert not links._models["cars"].is_loaded
    table.save(tmp_path / "recorded")
    assert len(type(table).open(tmp_path / "recorded")) == 3


def _reselecting(**options: Any) -> Reselection:
    return Reselection(
        Budget(memory_mib=1.5),
        every=options.pop("every", 20),
        least=options.pop("least", 4),
        hysteresis=Hysteresis(period_s=3600, least_gain=options.pop("least_gain", 0.05)),
        **options,
    )


def test_models_are_chosen_anew_when_links_fare_otherwise() -> None:
    """`people` is predicted from `cars`, until there are no longer twice as many cars."""
    links, people, cars = _made(active=["cars"], reselection=_reselecting())
    for value in range(20):
        links.results(float(value))
    assert links.status().active == ("cars",)
    assert (people.loads, people.calls) == (1, 4)  # for four of twenty inputs
    people.factor = 7.0  # cars = 2 x and people = 7 x: neither link is right any longer
    for value in range(100, 120):
        links.results(float(value))
    assert links.status().active == ("cars",)  # nor is it any better the other way round
    assert links.status().profiles == 2
    cars.factor = 3.5
    people.factor = 1.0
    links._ensembles["cars"] = links._selector._ensembles["cars"] = times(  # type: ignore[union-attr,index]
        "cars", {"people": 3.5}
    )
    for value in range(200, 204):
        links.results(float(value))
    assert links.status().active == ("people",)
    assert links.status().switches == 1
    assert not links._models["cars"].is_loaded
    assert links.results(5.0)["cars"].origin is Origin.PREDICTED


def test_a_model_over_the_budget_is_evicted_and_hysteresis_keeps_equals() -> None:
    links, *_ = _made(active=["people", "cars"], reselection=_reselecting())
    for value in range(4):
        links.results(float(value))
    assert len(links.status().active) == 1
    active = links.status().active
    for value in range(4, 100):
        links.results(float(value))
    assert links.status().active == active
    assert links.status().switches == 1


def test_a_model_that_cannot_be_profiled_is_not_chosen() -> None:
    links, _, cars = _made(reselection=_reselecting())
    cars.absent = True
    for value in range(8):
        links.results(float(value))
    assert links.status().active == ("people",)
    assert links.status().profiles == 1


def test_costs_are_measured_where_the_model_runs() -> None:
    held: list[Any] = []

    def load() -> Any:
        fresh = mmap.mmap(-1, 32 << 20)  # an array might get memory that is there already
        fresh.write(bytes(range(256)) * (len(fresh) // 256))
        held.append(fresh)
        return lambda value: value

    loading = Loading(Node("large", NUMBER, load), retry_s=1.0)
    assert loading.cost is None
    loading.run(1.0)
    cost = loading.cost
    assert cost is not None
    assert 28 < cost.memory_mib < 60
    assert cost.latency_ms > 0
    assert cost.load_s > 0


def test_memory_of_a_model_that_is_loaded_before_another_runs_is_its_own() -> None:
    """Both are loaded, then both run: neither is weighed with the other."""
    held: list[Any] = []

    def load(mib: int) -> Any:
        fresh = mmap.mmap(-1, mib << 20)
        fresh.write(bytes(range(256)) * (len(fresh) // 256))
        held.append(fresh)
        return lambda value: value

    sizes = {"small": 8, "large": 64}
    models = [
        Loading(Node(name, NUMBER, partial(load, mib)), retry_s=1.0)
        for name, mib in sizes.items()
    ]
    for model in models:
        model.load()
    for model in models:
        model.run(1.0)
    small, large = (model.cost for model in models)
    assert small is not None
    assert large is not None
    assert small.memory_mib < 30
    assert 60 < large.memory_mib < 100


def test_files_and_modules_are_nodes(tmp_path: Path) -> None:
    import torch

    linear = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Softmax(dim=-1))
    spec = Vec("single-label", 3)
    module = Loading(
        torch_node(
            "classes", spec, lambda: linear, prepare=lambda value: torch.tensor(value)[None]
        ),
        retry_s=1.0,
    )
    output, row = module.run(np.array([1.0, 2.0], np.float32))
    assert output.shape == (1, 3)
    assert row.shape == (3,)
    assert row.sum() == pytest.approx(1.0)
    absent = Loading(onnx_node("absent", spec, tmp_path / "absent.onnx"), retry_s=1.0)
    with pytest.raises(FailedError, match=r"there is no .*absent\.onnx"):
        absent.run(np.zeros(2))
    assert class_row(1, spec).tolist() == [0, 1, 0]


def test_an_onnx_file_is_a_node(test_data: Path) -> None:
    path = test_data / "models" / "kwt1" / "kwt1.onnx"
    spec = Vec("regression", 12)
    words = Loading(onnx_node("words", spec, path), retry_s=1.0)
    _, row = words.run(np.zeros((1, 16_000), np.float32))
    assert row.shape == (12,)
    assert words.cost is not None
    assert words.cost.memory_mib > 0


def test_a_model_that_runs_now_and_then_is_held_and_then_predicted() -> None:
    """`cars` run on one of 4 inputs, hold for 2, and are predicted for the last."""
    links, people, cars = _made(refresh={"cars": Refresh(4, (0.8, 0.6))})
    told = [links.results(np.float64(value))["cars"] for value in (1, 2, 3, 4, 5, 6)]
    assert [one.output for one in told] == pytest.approx([2, 2, 2, 8, 10, 10], abs=1e-3)
    measured, predicted = Origin.MEASURED, Origin.PREDICTED
    origins = [measured, predicted, predicted, predicted, measured, predicted]
    assert [one.origin for one in told] == origins
    assert [one.confidence for one in told] == pytest.approx([1, 0.8, 0.6, 0.9, 1, 0.8])
    assert [one.sources for one in told[:4]] == [(), ("cars",), ("cars",), ("people",)]
    links.profile([np.float64(7)])
    links.choose(["people"])
    told = [links.results(np.float64(value))["cars"] for value in (8, 9, 10)]
    assert told[-1].origin is measured
    assert (people.calls, cars.calls, cars.loads) == (10, 4, 1), "it stays loaded"
    links, _, cars = _made(refresh={"cars": Refresh(4, ())})
    links.load()
    assert cars.loads == 1


def test_a_model_that_fails_when_it_is_its_turn_is_predicted_and_tried_again() -> None:
    now = [0.0]
    links, _, cars = _made(
        refresh={"cars": Refresh(2, (0.8,))}, retry_s=10.0, clock=lambda: now[0]
    )
    assert links.result("cars", np.float64(1.0)).origin is Origin.MEASURED
    cars.broken = True
    links.result("cars", np.float64(2.0))
    told = links.result("cars", np.float64(3.0))
    assert (told.sources, told.failure) == (("people",), "ValueError: bad input")
    cars.broken, now[0] = False, 11.0
    assert links.result("cars", np.float64(4.0)).origin is Origin.MEASURED
    with pytest.raises(SettingsError, match="reselection or refresh"):
        _made(
            refresh={"cars": Refresh(2, ())},
            reselection=Reselection(Budget(memory_mib=1.0), every=10),
        )
