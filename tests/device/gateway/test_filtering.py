"""Filters before the models of cameras: what they spare, say, get wrong, and how they go."""

from __future__ import annotations

import json
import stat
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from moving_squares import (
    RATE,
    SIZES,
    SMALL,
    fitted,
    is_there,
    pictures,
    saved,
    saved_with_stage,
    write_clip,
)
from watched import Kept, gateway, settings_of

from triparty.common.errors import SettingsError
from triparty.common.tables import read_table
from triparty.device.filters.first_stage import STAGE_FILE
from triparty.device.filters.tables import chosen
from triparty.device.gate.artifact import Gate, GateTask, TrainingFacts
from triparty.device.gate.features import FeatureChoice
from triparty.device.gate.policies import make
from triparty.device.gate.policy import Arrivals, Column, Offers
from triparty.device.gate.predictor import Network, Predictor, random_weights
from triparty.device.gateway.frame_filter import stamp_of
from triparty.device.gateway.gateway import Gateway
from triparty.device.gateway.metrics import MetricsServer
from triparty.device.gateway.models import FunctionStage
from triparty.device.gateway.settings import WatchSettings
from triparty.device.gateway.status import FilterStatus, document, line
from triparty.device.gateway.watching import open_settings

pytest.importorskip("torch")
pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

TASKS = ({"name": "square", "model": "model", "measure": "presence", "looks": 1, "hold_s": 0},)
FRAMES = 250
ALWAYS, NEVER = 1e9, None


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("squares") / "a.mp4", pictures(FRAMES, seed=7))


class Model:
    """Says whether there is a square, and counts its looks."""

    def __init__(self) -> None:
        self.looks = 0

    def __call__(self, rgb: Any) -> float:
        self.looks += 1
        return float(is_there(rgb))


@dataclass(frozen=True)
class Watched:
    """What came of watching."""

    status: Any
    results: list[Any]
    events: list[Any]
    looks: int

    @property
    def filter(self) -> FilterStatus:
        (one,) = self.status.filters
        return one  # type: ignore[no-any-return]

    @property
    def answers(self) -> dict[float, bool]:
        return {each["time"]: each["answers"].get("square") for each in self.results}


def configured(
    folder: Path, cameras: dict[str, Any], *filters: dict[str, Any], **more: Any
) -> WatchSettings:
    rows = [{"name": "squares", "model": "model", "audit_share": 0.0, **one} for one in filters]
    more.setdefault("defaults", {"whole": True, "looks_per_s": RATE})
    return settings_of(folder, cameras, tasks=TASKS, filters=rows, **more)


def watched(
    settings: WatchSettings, *, then: Callable[[Gateway], None] = Gateway.run, **more: Any
) -> Watched:
    kept, model = Kept(), Model()
    stages = [FunctionStage("model", model)]
    with gateway(settings, stages=stages, kept=kept, wall=lambda: 1e9, **more) as running:
        then(running)
        status = running.status
    return Watched(status, kept.of("result"), kept.of("event"), model.looks)


@pytest.fixture(scope="module")
def unfiltered(clip: Path, tmp_path_factory: pytest.TempPathFactory) -> Watched:
    return watched(configured(tmp_path_factory.mktemp("unfiltered"), {"a": clip}))


def agreement(one: Watched, other: Watched) -> float:
    assert one.answers.keys() == other.answers.keys()
    return float(np.mean([one.answers[time] == other.answers[time] for time in one.answers]))


def test_skipped_frames_are_answered_within_the_accuracy(
    clip: Path, unfiltered: Watched, tmp_path: Path
) -> None:
    made = watched(configured(tmp_path, {"a": clip}, {"artifact": saved(tmp_path / "f")}))
    assert unfiltered.looks == len(unfiltered.results) == FRAMES
    assert agreement(made, unfiltered) >= 0.9
    filtered = [each for each in made.results if each["filtered"]]
    assert made.looks == FRAMES - len(filtered) == made.filter.passed
    assert made.filter.filtered == len(filtered) > 0.3 * FRAMES
    assert made.filter.reused == 0
    for each in filtered:
        assert each["filtered"] == {"model": "Redundant"}
        assert each["seen"] == {}
        assert each["answers"] == {"square": False}
    assert len(made.events) >= 0.8 * len(unfiltered.events) > 10
    summary = document(made.status)["filters"][0]
    assert summary["filter_rate"] == pytest.approx(len(filtered) / FRAMES, abs=1e-4)
    assert summary["ms_per_frame"] > 0
    assert f"squares filtered {len(filtered) / FRAMES:.0%}" in line(made.status)


def test_a_filter_that_the_cloud_trained_on_features(
    clip: Path, unfiltered: Watched, tmp_path: Path
) -> None:
    folder = saved_with_stage(tmp_path / "f")
    made = watched(configured(tmp_path, {"a": clip}, {"artifact": folder}))
    assert agreement(made, unfiltered) >= 0.8
    assert made.filter.filtered > 0.3 * FRAMES
    before = stamp_of(folder)
    (folder / STAGE_FILE).write_bytes((folder / STAGE_FILE).read_bytes() + b"\0")
    assert stamp_of(folder) != before


def test_an_earlier_answer_is_reused(clip: Path, unfiltered: Watched, tmp_path: Path) -> None:
    folder = saved(tmp_path / "f", "reuse")
    made = watched(configured(tmp_path, {"a": clip}, {"artifact": folder}))
    assert agreement(made, unfiltered) >= 0.9
    assert made.filter.reused == made.filter.filtered > 0.3 * FRAMES
    assert made.looks == FRAMES - made.filter.reused >= 50
    told = [each for each in made.results if each["filtered"]]
    assert {each["filtered"]["model"] for each in told} == {"Reused"}
    assert {each["answers"]["square"] for each in told} == {True, False}


@pytest.mark.parametrize(("cache", "fills"), [("camera", 2), ("shared", 1)])
def test_caches_are_of_a_camera_or_shared(
    cache: str, fills: int, clip: Path, tmp_path: Path
) -> None:
    folder = saved(tmp_path / "f", "reuse")
    rows = {"artifact": folder, "cache": cache}
    made = watched(configured(tmp_path, {"a": clip, "b": clip}, rows))
    assert fills * 50 <= made.looks < fills * 50 + 50


def test_a_filter_that_passes_all_changes_nothing(
    clip: Path, unfiltered: Watched, tmp_path: Path
) -> None:
    folder = saved(tmp_path / "f", threshold=NEVER)
    made = watched(configured(tmp_path, {"a": clip}, {"artifact": folder}))
    assert json.dumps(made.results) == json.dumps(unfiltered.results)
    assert json.dumps(made.events) == json.dumps(unfiltered.events)
    assert made.looks == unfiltered.looks
    assert made.filter.filtered == 0


class TestAudits:
    def test_a_filter_that_always_says_redundant_is_caught(
        self, clip: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        httpx = pytest.importorskip("httpx")
        folder = saved(tmp_path / "f", threshold=ALWAYS)
        rows = {"artifact": folder, "audit_share": 0.4}
        made = watched(configured(tmp_path, {"a": clip}, rows))
        found = made.filter
        assert found.audited == found.passed == made.looks > 0.3 * FRAMES
        assert 0.3 * found.audited < found.wrong < found.audited
        assert found.is_drifting
        assert found.accuracy_high < found.target_accuracy
        assert "filter 'squares' drifts" in caplog.text
        assert caplog.text.count("drifts") == 1
        assert "squares filtered" in line(made.status)
        assert "DRIFTING" in line(made.status)
        assert document(made.status)["filters"][0]["drifting"] is True
        server = MetricsServer(lambda: made.status, host="127.0.0.1", port=0)
        try:
            text = httpx.get(f"http://127.0.0.1:{server.port}/metrics").text
        finally:
            server.stop()
        for name, value in (
            ("drifting", 1.0),
            ("wrong_total", found.wrong),
            ("audited_total", found.audited),
            ("passed_total", found.passed),
            ("filtered_total", found.filtered),
            ("reused_total", 0),
            ("rate", found.filter_rate),
        ):
            full = f'triparty_device_filter_{name}{{filter="squares"}}'
            assert f"{full} {float(value)}" in text
        assert 'filter_ms_per_frame{filter="squares"}' in text
        audits = [each for each in made.results if not each["filtered"]]
        assert len(audits) == found.audited
        assert all("model" in each["seen"] for each in audits)

    def test_a_filter_that_keeps_its_promise_is_not(
        self, clip: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        rows = {"artifact": saved(tmp_path / "f"), "audit_share": 1.0}
        found = watched(configured(tmp_path, {"a": clip}, rows)).filter
        assert found.audited == FRAMES
        assert found.accuracy is not None
        assert found.accuracy >= 0.9
        assert not found.is_drifting
        assert not caplog.text

    def test_a_cache_that_lies_is_caught(self, clip: Path, tmp_path: Path) -> None:
        folder = saved(tmp_path / "f", "reuse", threshold=ALWAYS)
        artifact = fitted("reuse").artifact
        (task,) = artifact.tasks
        task = replace(task, calibration=replace(task.calibration, threshold=ALWAYS))
        reuse = replace(artifact.reuse, neighbours=1, first=1)
        replace(artifact, tasks=(task,), reuse=reuse).save(folder)
        rows = {"artifact": folder, "audit_share": 0.5}
        found = watched(configured(tmp_path, {"a": clip}, rows)).filter
        assert found.is_drifting
        assert found.wrong > 20


class Last:
    """Chooses the last picture of each group, and keeps what it is told."""

    def __init__(self) -> None:
        self._inner = make("round_robin")
        self.heard = list[Any]()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def value(self, arrivals: Arrivals, offers: Offers) -> Column:
        number = np.rint(arrivals.time[offers.arrivals] * RATE).astype(int)
        value = self._inner.value(arrivals, offers)
        return np.where(number % 5 == 4, value, -np.inf)

    def learn(self, feedback: Any) -> None:
        self.heard.append(feedback)


def test_what_a_filter_knows_of_dependencies_is_an_observation(
    clip: Path, tmp_path: Path
) -> None:
    more: dict[str, Any] = {"defaults": {"looks_per_s": RATE / 2}}
    policies = Last(), Last()
    always = saved(tmp_path / "always", threshold=ALWAYS)
    never = saved(tmp_path / "never", threshold=NEVER)
    rows = {"artifact": always, "audit_share": 0.0}
    knows = watched(configured(tmp_path, {"a": clip}, rows, **more), policy=policies[0])
    rows = {"artifact": never}
    says_nothing = watched(configured(tmp_path, {"a": clip}, rows, **more), policy=policies[1])
    assert knows.looks == 0
    assert knows.filter.observed > 5
    assert knows.filter.filtered == knows.status.cameras[0].selected
    assert says_nothing.filter.observed == 0
    assert says_nothing.status.cameras[0].observed > 5
    assert says_nothing.looks == says_nothing.status.cameras[0].selected
    told = [sum((~each.selected).sum() for each in policy.heard) for policy in policies]
    assert told == [knows.filter.observed, 0]


class TestRefusals:
    def start(self, folder: Path, clip: Path, artifact: Path) -> None:
        with gateway(configured(folder, {"a": clip}, {"artifact": artifact})):
            pass

    def test_what_is_not_there(self, clip: Path, tmp_path: Path) -> None:
        with pytest.raises(SettingsError, match=r"'squares': .*/gone is no filter.*fit.*pull"):
            self.start(tmp_path, clip, tmp_path / "gone")

    @pytest.mark.parametrize("file", ["filter.json", "filter.onnx"])
    def test_what_is_broken(self, file: str, clip: Path, tmp_path: Path) -> None:
        folder = saved(tmp_path / "f")
        data = (folder / file).read_bytes()
        (folder / file).write_bytes(data[: len(data) // 2])
        with pytest.raises(SettingsError, match=r"'squares': .*/f cannot be used.*fit or pull"):
            self.start(tmp_path, clip, folder)

    def test_what_takes_something_else_than_luma(self, clip: Path, tmp_path: Path) -> None:
        from made_inputs import write_filter

        with pytest.raises(SettingsError, match=r"/f takes vector \(6,\).*luma planes"):
            self.start(tmp_path, clip, write_filter(tmp_path / "f"))

    def test_a_measure_of_ones_own(self, clip: Path, tmp_path: Path) -> None:
        from triparty.device.filters import measure

        artifact = fitted("skip").artifact
        task = replace(artifact.tasks[0], measure=measure(lambda result: True))
        task = replace(task, measure=replace(task.measure, name="mine"))
        replace(artifact, tasks=(task,)).save(tmp_path / "f")
        with pytest.raises(SettingsError, match=r"/f has the measure 'mine'.*as-given"):
            self.start(tmp_path, clip, tmp_path / "f")


class TestCheck:
    """What `watch --check` tells before the start."""

    def settings(self, folder: Path, artifact: Path, **more: Any) -> WatchSettings:
        model = more.pop("model", {"python": "not_run_by_a_check:look"})
        (folder / "not_run_by_a_check.py").write_text("raise RuntimeError('it was run')")
        return configured(
            folder,
            {"a": folder / "gone.mp4"},
            {"artifact": artifact},
            models=[{"name": "model", **model}],
            **more,
        )

    @pytest.fixture(autouse=True)
    def importable(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.syspath_prepend(str(tmp_path))

    def test_nothing_wrong_opens_no_camera_and_runs_no_code(self, tmp_path: Path) -> None:
        before = sorted(saved(tmp_path / "f").iterdir())
        open_settings(self.settings(tmp_path, tmp_path / "f"))
        assert sorted((tmp_path / "f").iterdir()) == before

    @pytest.mark.parametrize("file", ["filter.json", "filter.onnx"])
    def test_a_broken_filter(self, file: str, tmp_path: Path) -> None:
        path = saved(tmp_path / "f") / file
        path.write_bytes(path.read_bytes()[:-40])
        with pytest.raises(SettingsError, match=r"'squares': .*/f cannot be used.*fit or pull"):
            open_settings(self.settings(tmp_path, tmp_path / "f"))
        with pytest.raises(SettingsError, match="is no filter"):
            open_settings(self.settings(tmp_path, tmp_path / "gone"))

    def test_a_model_that_is_none(self, tmp_path: Path) -> None:
        folder = saved(tmp_path / "f")
        for model, message in (
            ({"file": "gone.onnx"}, "gone.onnx: no such detector"),
            ({"file": "f/filter.json"}, "not an ONNX model"),
            ({"python": "no_such_module_anywhere.inside:look"}, "no module named 'no_such_mod"),
        ):
            with pytest.raises(SettingsError, match=message):
                open_settings(self.settings(tmp_path, folder, model=model))

    def test_a_gate_that_is_none(self, tmp_path: Path) -> None:
        (tmp_path / "g").mkdir()
        (tmp_path / "g" / "gate.json").write_text("{}")
        gate = {"policy": "ours", "artifact": "g"}
        with pytest.raises(SettingsError, match=r"gate: .*/g cannot be used .*again"):
            open_settings(self.settings(tmp_path, saved(tmp_path / "f"), gate=gate))

    def test_a_gate_that_its_policy_does_not_run(self, tmp_path: Path) -> None:
        network = Network("extended", FeatureChoice())
        weights = random_weights(network, rng=np.random.default_rng(0))
        facts = TrainingFacts(1, 2, 3, "full", 0, 0.5, (0.25,))
        gate = Gate(Predictor(network, weights), (GateTask("people"),), facts)
        gate.save(tmp_path / "g")
        folder = saved(tmp_path / "f")
        open_settings(self.settings(tmp_path, folder, gate={"artifact": "g"}))
        for given, got in (({}, "no gate"), ({"artifact": "g"}, "extended")):
            with pytest.raises(SettingsError, match=f"'paper': .*'published', got {got}: "):
                open_settings(self.settings(tmp_path, folder, gate={"policy": "paper"} | given))


class TestReload:
    def run(
        self, first: WatchSettings, change: Callable[[], WatchSettings]
    ) -> tuple[Watched, list[FilterStatus]]:
        before: list[FilterStatus] = []

        def play(running: Gateway) -> None:
            running.run(seconds=4.0)
            before.extend(running.status.filters)
            running.reload(change)
            running.run()

        return watched(first, then=play), before

    def test_a_changed_table_is_taken_and_no_frame_is_lost(
        self, clip: Path, unfiltered: Watched, tmp_path: Path
    ) -> None:
        never = saved(tmp_path / "never", threshold=NEVER)
        always = saved(tmp_path / "always", threshold=ALWAYS)
        first = configured(tmp_path, {"a": clip}, {"artifact": never})
        second = configured(tmp_path, {"a": clip}, {"artifact": always})
        made, (before,) = self.run(first, lambda: second)
        assert made.status.reloads == 1
        assert made.answers.keys() == unfiltered.answers.keys()
        assert (before.filtered, before.passed) == (0, made.looks)
        assert made.filter.passed == before.passed > 50
        assert made.filter.filtered == FRAMES - before.passed > 50

    def test_a_newer_filter_at_the_same_place_is_taken(
        self, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("TRIPARTY_DEVICE_HOME", str(tmp_path / "home"))
        pulled = saved(tmp_path / "home" / "filters" / "square", threshold=NEVER)
        settings = configured(tmp_path, {"a": clip}, {"artifact": Path("square")})

        def pull() -> WatchSettings:
            saved(pulled, threshold=ALWAYS)
            return settings

        made, (before,) = self.run(settings, pull)
        assert before.filtered == 0
        assert made.filter.filtered == FRAMES - before.passed > 50

    def test_the_same_filter_goes_on_with_its_cache(self, clip: Path, tmp_path: Path) -> None:
        rows = {"artifact": saved(tmp_path / "f", "reuse")}
        settings = configured(tmp_path, {"a": clip}, rows)
        made, _ = self.run(settings, lambda: settings)
        assert made.looks < 100

    def test_filters_may_come_and_go(self, clip: Path, tmp_path: Path) -> None:
        rows = {"artifact": saved(tmp_path / "f", threshold=ALWAYS)}
        without = configured(tmp_path, {"a": clip})
        made, _ = self.run(without, lambda: configured(tmp_path, {"a": clip}, rows))
        assert 50 < made.filter.filtered == FRAMES - made.looks < 200

    def test_a_broken_one_is_refused_and_the_old_one_stays(
        self, clip: Path, tmp_path: Path
    ) -> None:
        folder = saved(tmp_path / "f", threshold=ALWAYS)
        settings = configured(tmp_path, {"a": clip}, {"artifact": folder})

        def spoil() -> WatchSettings:
            (folder / "filter.onnx").write_bytes(b"no network")
            return settings

        made, _ = self.run(settings, spoil)
        assert "/f cannot be used" in made.status.refused
        assert (made.looks, made.filter.filtered) == (0, FRAMES)


class TestSamples:
    def test_audits_and_unsure_frames_are_kept_for_training(
        self, clip: Path, tmp_path: Path
    ) -> None:
        rows = {
            "artifact": saved(tmp_path / "f"),
            "audit_share": 0.3,
            "samples": Path("samples"),
            "uncertain_share": 0.2,
        }
        made = watched(configured(tmp_path, {"a": clip}, rows))
        folder = tmp_path / "samples"
        parts = sorted(folder.iterdir())
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert {stat.S_IMODE(part.stat().st_mode) for part in parts} == {0o600}
        table = read_table(folder)
        inputs, needed = chosen(table, (), (), has_model=False)
        assert inputs["input"].shape == (made.filter.samples, SMALL, SMALL, 1)
        drawn = np.asarray(table["drawn"])
        assert drawn.sum() == made.filter.audited
        assert 5 < (~drawn).sum() < 0.4 * FRAMES
        there = np.array([is_there(one) for one in inputs["input"]])
        assert np.mean(there == needed) > 0.95
        from triparty.common.nets.training import Course
        from triparty.device.filters import Filter, Recipe

        again = Filter.fit(inputs, needed, recipe=Recipe(sizes=SIZES), course=Course(epochs=1))
        assert again.artifact.design.inputs[0].shape == (SMALL, SMALL, 1)

    def test_of_a_reuse_filter_equal_results_have_equal_labels(
        self, clip: Path, tmp_path: Path
    ) -> None:
        rows = {
            "artifact": saved(tmp_path / "f", "reuse"),
            "audit_share": 0.5,
            "samples": Path("s"),
        }
        watched(configured(tmp_path, {"a": clip}, rows))
        inputs, labels = chosen(read_table(tmp_path / "s"), (), (), has_model=False)
        assert labels is not None
        assert len(inputs["input"]) == len(labels)
        assert len(set(labels.tolist())) == 2

    def test_none_are_kept_unless_told(self, clip: Path, tmp_path: Path) -> None:
        rows = {"artifact": saved(tmp_path / "f"), "audit_share": 0.5}
        made = watched(configured(tmp_path, {"a": clip}, rows))
        assert made.filter.samples == 0
        assert {one.name for one in tmp_path.iterdir()} == {"f"}


def test_only_the_cameras_of_a_filter_are_filtered(clip: Path, tmp_path: Path) -> None:
    rows = {"artifact": saved(tmp_path / "f", threshold=ALWAYS), "cameras": ("b",)}
    made = watched(configured(tmp_path, {"a": clip, "b": clip}, rows))
    by: dict[str, Sequence[bool]] = {
        name: [bool(each["filtered"]) for each in made.results if each["camera"] == name]
        for name in "ab"
    }
    assert not any(by["a"])
    assert all(by["b"])
