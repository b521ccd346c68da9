"""A model behind a filter: what it is spared, what is audited, how it is updated."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from made_inputs import clouds, copied, fitted, model

from triparty.common.errors import DatasetError, SettingsError
from triparty.device.filters import Filter
from triparty.device.filters.drift import DriftAlarm
from triparty.device.filters.filtered import Filtered, Status
from triparty.device.filters.results import OtherClass, Skipped

pytest.importorskip("torch")
pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")


class Counting:
    """The model of the clouds, which counts its calls."""

    def __init__(self) -> None:
        self.calls = 0
        self._model = model()

    def __call__(self, point: Any) -> int:
        self.calls += 1
        return self._model(point)


def test_what_is_skipped_has_a_type_and_the_model_is_spared() -> None:
    points, classes = clouds(200, seed=8)
    counting = Counting()
    guarded = fitted("skip").in_front_of(counting, audit_share=0.0)
    results = [guarded(point) for point in points]
    skipped = [isinstance(one, Skipped) for one in results]
    assert counting.calls == 200 - sum(skipped)
    assert guarded.status().filtered == sum(skipped) > 100
    assert next(one for one in results if isinstance(one, Skipped)) == OtherClass(
        "task", ("0",)
    )
    assert all(one == int(c) for one, c in zip(results, classes, strict=True) if
               not isinstance(one, Skipped))  # fmt: skip
    needed = fitted("skip").needed(points)[:, 0]
    assert [not one for one in skipped] == needed.tolist()


def test_an_earlier_result_is_reused() -> None:
    points, classes = clouds(300, seed=9)
    counting = Counting()
    results = list(fitted("reuse").apply(points, counting))
    assert counting.calls < 150
    assert np.mean(np.array(results) == classes) > 0.9


def test_it_is_a_decorator_and_prepares_inputs() -> None:
    made = fitted("skip")

    @made.in_front_of
    def where(point: Any) -> str:
        """Where it is."""
        return "somewhere"

    assert where.__doc__ == "Where it is."
    assert isinstance(where, Filtered)
    guarded = made.in_front_of(
        lambda frame: frame["name"], prepare=lambda frame: frame["point"]
    )
    points, _ = clouds(50, seed=3)
    needed = points[int(made.needed(points)[:, 0].argmax())]
    assert guarded({"name": "a", "point": needed}) == "a"


@pytest.mark.parametrize("bad", [np.full(6, np.nan), np.zeros(5), None, "text"])
def test_an_input_that_the_filter_cannot_take_reaches_the_model(bad: Any) -> None:
    guarded = fitted("skip").in_front_of(lambda _: "run", audit_share=0.0)
    assert guarded(bad) == "run"
    assert guarded.status().unreadable == 1


def uncalibrated(kind: str) -> Filter:
    artifact = fitted(kind).artifact
    none = replace(artifact.tasks[0].calibration, threshold=None)
    return Filter(replace(artifact, tasks=(replace(artifact.tasks[0], calibration=none),)))


@pytest.mark.parametrize("kind", ["skip", "reuse"])
def test_without_a_threshold_nothing_is_filtered(kind: str) -> None:
    guarded = uncalibrated(kind).in_front_of(lambda _: 1, audit_share=0.0)
    points, _ = clouds(80)
    assert [guarded(point) for point in points] == [1] * 80


def test_audits_tell_the_true_accuracy_and_return_the_models_result() -> None:
    points, classes = clouds(300, seed=10)
    always = fitted("skip").in_front_of(Counting(), audit_share=1.0)
    results = [always(point) for point in points]
    assert results == classes.tolist()
    status = always.status()
    assert (status.audited, status.filtered) == (300, 0)
    wrong = (~fitted("skip").needed(points)[:, 0] & (classes == 0)).mean()
    assert status.accuracy == pytest.approx(1 - wrong)
    assert status.accuracy_low < status.accuracy < status.accuracy_high or wrong == 0
    assert not status.is_drifting
    share = fitted("skip").in_front_of(Counting(), audit_share=0.1, seed=1)
    for point in points:
        share(point)
    assert 15 <= share.status().audited <= 45


@pytest.mark.parametrize("kind", ["skip", "reuse"])
def test_drift_raises_one_alarm(kind: str) -> None:
    alarms: list[Status] = []
    changed: list[bool] = []

    def now(point: Any) -> int:
        """The model, whose answers come to mean something else."""
        told = model()(point)
        return told if not changed else (0 if kind == "skip" else (told + len(changed)) % 4)

    guarded = fitted(kind).in_front_of(now, audit_share=0.5, on_drift=alarms.append)
    points, _ = clouds(400, seed=11)
    for point in points:
        guarded(point)
    assert not alarms
    for point in points:
        if kind == "reuse" or not changed:
            changed.append(True)
        guarded(point)
    assert len(alarms) == 1
    assert alarms[0].is_drifting
    assert alarms[0].accuracy is not None


def test_an_alarm_is_rarely_false_and_soon_true() -> None:
    rng = np.random.default_rng(0)
    false = 0
    for _ in range(60):
        alarm = DriftAlarm(0.9, patience=2000)
        for wrong in rng.random(400) < 0.1:
            alarm.audited(is_wrong=bool(wrong))
        false += alarm.is_raised
    assert false <= 12  # at most one in 2000 audits on average: 60 x 400 / 2000
    alarm = DriftAlarm(0.9, patience=2000)
    waited = 0
    while not alarm.is_raised:
        alarm.audited(is_wrong=bool(rng.random() < 0.3))
        waited += 1
    assert waited < 200
    alarm.reset()
    assert not alarm.is_raised
    calm = DriftAlarm(0.9, patience=1000)
    for wrong in (*[False] * 500, *[True] * 7):  # no credit for what was right before, nor debt
        calm.audited(is_wrong=wrong)
    assert not calm.is_raised  # (1.5^7 + 2^7 + 3^7) / 3 = 777
    calm.audited(is_wrong=True)
    assert calm.is_raised
    with pytest.raises(SettingsError):
        DriftAlarm(1.0)


def test_a_period_ends_with_an_update_on_the_least_certain() -> None:
    made = copied("skip")
    asked: list[Any] = []
    moved = clouds(400, seed=12)[0][:, ::-1].copy()

    def now(point: Any) -> int:
        asked.append(point)
        return model()(np.asarray(point)[::-1])

    guarded = made.in_front_of(now, audit_share=0.4)
    with pytest.raises(DatasetError):
        guarded.update()
    for point in moved:
        guarded(point)
    before, old = len(asked), made.core
    logits = made.outputs(moved)[:, 0]
    from triparty.common.nets.training import Course

    done = guarded.update(beta=0.05, course=Course(epochs=15, rate=5e-3))
    extra = asked[before:]
    assert 0 < len(extra) <= 20
    certainty = np.abs(1 / (1 + np.exp(-logits)) - 0.5)
    unsure = [float(certainty[np.abs(moved - one).sum(1).argmin()]) for one in extra]
    unlabelled = certainty[~made_needed(old, logits)]
    assert max(unsure) <= np.quantile(unlabelled, 0.35)
    assert done.is_taken
    assert done.after > done.before
    assert made.core is not old


def made_needed(core: Any, logits: Any) -> Any:
    return logits > core.artifact.tasks[0].calibration.threshold


def test_weights_change_without_dropping_an_input() -> None:
    """Threads go on calling while weights are swapped; a cache never serves other weights."""
    made = copied("reuse")
    guarded = made.in_front_of(model(), audit_share=0.0)
    points, _ = clouds(120, seed=13)
    cores = [made.core, Filter(made.artifact).core]
    failures: list[BaseException] = []
    results: list[Any] = []

    def call(part: Any) -> None:
        try:
            results.extend(guarded(point) for point in part)
        except BaseException as error:  # noqa: BLE001 - reported by the test
            failures.append(error)

    threads = [threading.Thread(target=call, args=(points[i::4],)) for i in range(4)]
    for thread in threads:
        thread.start()
    for number in range(40):
        made._core = cores[number % 2]
    for thread in threads:
        thread.join()
    assert not failures
    assert len(results) == 120 == guarded.status().seen
    assert all(one in range(4) for one in results)
    old = guarded._caches[1]
    made._core = cores[0] if guarded._caches[0] is cores[1] else cores[1]
    guarded(points[0])
    assert guarded._caches[1] is not old


def test_models_and_settings_that_do_not_fit_are_refused() -> None:
    made = fitted("skip")
    for wrong in (
        {"model": {"other": model()}},
        {"model": model(), "audit_share": 1.5},
        {"model": model(), "window": 0},
    ):
        with pytest.raises(SettingsError):
            made.in_front_of(**wrong)
    with pytest.raises(SettingsError, match="beta"):
        made.in_front_of(model()).update(beta=2.0)
