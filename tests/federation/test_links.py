"""Links trained across sites: from recorded outputs to folders that are published."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

pytest.importorskip("flwr", reason="needs the extra federation")
pytest.importorskip("torch")

from made_outputs import CLASSES, PAIR, recorded_outputs
from made_sites import NOW, honest, run_in_process

from triparty.common.errors import FederationError, TripartyError
from triparty.common.federated_links import FederatedLinks
from triparty.common.federation import Task
from triparty.common.links.folder import open_links
from triparty.common.links.link import Link
from triparty.common.links.recipe import Recipe
from triparty.common.links.specs import Vec
from triparty.developer.cli import app as developer
from triparty.developer.federation.beginning import first_links
from triparty.developer.federation.federation import Federation
from triparty.developer.federation.plan import Plan
from triparty.developer.federation.service import start, trained_links
from triparty.device.cli import app as device
from triparty.device.federation.local_global import local_and_global
from triparty.device.federation.recordings import RecordedLearner

Call = Callable[..., str]


@pytest.fixture
def call() -> Call:
    def run(app: object, *arguments: object) -> str:
        answer = CliRunner().invoke(app, [str(one) for one in arguments])  # type: ignore[arg-type]
        if answer.exception is not None:
            raise answer.exception
        return answer.stdout

    return run


def agreement_of(predicted: np.ndarray, said: np.ndarray) -> float:
    return float((predicted.argmax(1) == said.argmax(1)).mean())


def test_sites_learn_together_what_one_sample_does_not_show(tmp_path: Path) -> None:
    links, weights = first_links(recorded_outputs(0), PAIR, 0)
    plan = Plan(Task("", epochs=3, rate=0.05), rounds=5, wait_s=0.0)
    federation = start(tmp_path / "f", links, weights, plan, address="127.0.0.1:8000", now=NOW)
    sites = {f"s{n}": honest(RecordedLearner(recorded_outputs(n))) for n in (1, 2, 3)}
    run_in_process(federation, sites)
    ((_, _, link),) = trained_links(federation)
    other = recorded_outputs(99, rows=500).outputs
    before = np.log(other["small"])
    nearer = link.predict(other["small"])
    loss = -(other["large"] * np.log(nearer + 1e-9)).sum(1).mean()
    assert loss < -(other["large"] * before).sum(1).mean()


@pytest.mark.parametrize("pair", [("small", "large"), ("large", "count"), ("count", "small")])
def test_scaling_is_the_developers_and_comes_back_from_nobody(pair: tuple[str, str]) -> None:
    rng = np.random.default_rng(0)
    sample = recorded_outputs(0)
    counts = rng.normal(5, 3, size=(len(sample), 1)).astype(np.float32)
    recorded = replace(
        sample,
        specs={**sample.specs, "count": Vec("regression", 1)},
        outputs={**sample.outputs, "count": counts},
    )
    links, weights = first_links(recorded, [pair], 0)
    trained, fixed = links.split([*weights])
    assert all(name.endswith((".mean", ".scale")) for name in fixed)
    task = Task(links.text(), fixed={k: tuple(map(float, v)) for k, v in fixed.items()})
    got = RecordedLearner(recorded).train(trained, task)
    assert got.weights.keys() == trained.keys()
    assert any(np.abs(got.weights[name] - trained[name]).max() > 0 for name in trained)
    joined = links.join(trained, fixed)
    for name, value in weights[0].items():
        np.testing.assert_array_equal(joined[0][name], value)


def test_training_is_a_function_of_weights_task_and_data() -> None:
    links, weights = first_links(recorded_outputs(0), PAIR, 0)
    trained, _ = links.split([*weights])
    task, learner = Task(links.text(), seed=3), RecordedLearner(recorded_outputs(1))
    one, other = (learner.train(trained, task) for _ in range(2))
    assert one.loss == other.loss
    for name, value in one.weights.items():
        np.testing.assert_array_equal(other.weights[name], value)
    again = learner.train(trained, replace(task, seed=4)).weights
    assert any(np.abs(again[name] - value).max() > 0 for name, value in one.weights.items())


def test_one_full_batch_step_is_the_gradient_of_the_mean_loss() -> None:
    """What algorithm 5.1 averages: (before - after) / rate is d loss / d weights."""
    links, weights = first_links(recorded_outputs(0), PAIR, 0)
    trained, _ = links.split([*weights])
    site = recorded_outputs(1)
    task = Task(links.text(), epochs=1, batch=0, rate=0.5, optimizer="sgd")
    got = RecordedLearner(site).train(trained, task)
    slope = (trained["0.map.bias"] - got.weights["0.map.bias"]) / 0.5
    shares = site.outputs["small"]  # an identity link begins as no link
    np.testing.assert_allclose(slope, (shares - site.outputs["large"]).mean(0), atol=1e-4)


def test_a_site_whose_models_say_something_else_says_no() -> None:
    links, weights = first_links(recorded_outputs(0), PAIR, 0)
    trained, _ = links.split([*weights])
    here = recorded_outputs(1)
    renamed = replace(CLASSES, labels=("dog", "cat", "bird"))
    for specs in ({"small": renamed, "large": CLASSES}, {"large": CLASSES}):
        with pytest.raises(FederationError, match="'small'"):
            RecordedLearner(replace(here, specs=specs)).train(trained, Task(links.text()))
    with pytest.raises(FederationError, match="shape"):
        RecordedLearner(here).train({**trained, "0.map.bias": np.zeros(4)}, Task(links.text()))
    with pytest.raises(FederationError, match="missing or unknown"):
        RecordedLearner(here).train({}, Task(links.text()))
    for text in (
        "",
        "[]",
        "{}",
        "[1]",
        '[{"source": "a"}]',
        links.text().replace("single", "x"),
    ):
        with pytest.raises(FederationError):
            FederatedLinks.of_text(text)


def test_a_good_global_link_weighs_and_a_bad_one_does_not() -> None:
    links, weights = first_links(recorded_outputs(0), PAIR, 0)
    trained, _ = links.split([*weights])
    task = Task(links.text(), epochs=20, rate=0.1, batch=64)
    others = recorded_outputs(2, 300, turned=True)
    good = links.join(RecordedLearner(others).train(trained, task).weights, {})[0]
    bad = {**good, "map.weight": -good["map.weight"]}
    design = links.links[0].design
    here = recorded_outputs(1, 12, turned=True)
    later = recorded_outputs(50, 500, turned=True).outputs
    right = {}
    for name, value in (("good", good), ("bad", bad)):
        made = local_and_global(here, "small", "large", Link(design, value), Recipe(epochs=10))
        assert [member.source for member in made.ensemble.members] == ["small", "small"]
        right[name] = agreement_of(made.ensemble.predict(later).outputs, later["large"])
        right["local"] = agreement_of(made.local.link.predict(later["small"]), later["large"])
    assert right["good"] > 0.8 > right["local"] + 0.05
    assert right["bad"] >= right["local"] - 0.02


def test_from_the_command_line_to_a_folder_that_can_be_published(
    tmp_path: Path, call: Call
) -> None:
    recorded_outputs(0).save(tmp_path / "own")
    folder = tmp_path / "across"
    made = json.loads(
        call(
            developer,
            "federate",
            "init",
            folder,
            "--outputs",
            tmp_path / "own",
            "--link",
            "small:large",
            "--address",
            "127.0.0.1:8000",
            "--rounds",
            2,
            "--wait",
            0,
            "--json",
        )
    )
    for name in ("a", "b"):
        call(
            device,
            "federate",
            "key",
            made["call"],
            "--home",
            tmp_path / name,
            "-o",
            tmp_path / f"{name}.pub",
        )
        call(developer, "federate", "register", folder, name, tmp_path / f"{name}.pub")
    federation = Federation(folder)
    assert list(federation.sites()) == ["a", "b"]
    with pytest.raises(TripartyError, match="no round was run"):
        call(developer, "federate", "export", folder, tmp_path / "out")
    sites = {
        name: honest(RecordedLearner(recorded_outputs(n))) for n, name in enumerate("ab", 1)
    }
    run_in_process(federation, sites)
    told = json.loads(call(developer, "federate", "status", folder, "--json"))
    assert (told["round"], told["sites"], told["left_out"]) == (2, ["a", "b"], {})
    call(developer, "federate", "export", folder, tmp_path / "out", "--test", tmp_path / "own")
    ensemble = open_links(tmp_path / "out" / "large")
    assert list(ensemble.sources) == ["small"]
    assert 0.5 < ensemble.expected <= 1
    # A run that is over starts nothing.
    done = json.loads(call(developer, "federate", "run", folder, "--json"))
    assert done["round"] == 2
