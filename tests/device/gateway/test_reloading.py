"""A configuration that is read again: cameras come, go and change, the others run on."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from watched import Kept, Witness, gateway, settings_of, whole

from triparty.common.errors import SettingsError
from triparty.device.gateway.clock import WallClock
from triparty.device.gateway.frames import StreamFrame
from triparty.device.gateway.gateway import Gateway
from triparty.device.gateway.metrics import MetricsServer
from triparty.device.gateway.models import DetectorStage, FunctionStage
from triparty.device.gateway.reloading import Changes, Reloader, changes
from triparty.device.gateway.settings import ModelSettings, WatchSettings
from triparty.device.gateway.stages import Seen
from triparty.device.gateway.status import document, line
from triparty.device.streams.status import State

TASKS = ({"name": "bright", "model": "model", "measure": "value"},)


@pytest.fixture
def clips(test_data: Path) -> Path:
    return test_data / "clips"


def settings(folder: Path, clips: Path, *names: str, **more: Any) -> WatchSettings:
    cameras = {
        name.partition("=")[0]: clips / f"{name.partition('=')[2] or 'car-detection'}.mp4"
        for name in names
    }
    more.setdefault("tasks", TASKS)
    more.setdefault("gate", {"budget_ms": 0.5})
    return settings_of(folder, cameras, **more)


def play(running: Gateway, seconds: float) -> None:
    running.run(seconds=seconds)


def of(running: Gateway) -> dict[str, int]:
    return {camera.name: camera.arrived for camera in running.status.cameras}


def test_what_changed_is_found(tmp_path: Path, clips: Path) -> None:
    old = settings(tmp_path, clips, "a", "b", "c")
    new = settings(tmp_path, clips, "d", "c=bottle-detection", "a")
    made = changes(old, new)
    assert [camera.name for camera in made.added] == ["d"]
    assert [camera.name for camera in made.changed] == ["c"]
    assert made.removed == ("b",)
    assert str(made) == "cameras: 1 added, 1 changed, 1 removed"
    moved = changes(old, old, has_moved=lambda camera: camera.name == "b")
    assert [camera.name for camera in moved.changed] == ["b"]
    assert changes(old, old) == Changes((), (), ())


def test_defaults_change_the_cameras_that_follow_them(tmp_path: Path) -> None:
    text = '[defaults]\nlooks_per_s = {}\n[[cameras]]\nname = "a"\nurl = "a.mp4"\n'
    text += '[[cameras]]\nname = "b"\nurl = "a.mp4"\nlooks_per_s = 3\n'
    read = []
    for looks in (5, 6):
        (tmp_path / "watch.toml").write_text(text.format(looks))
        read.append(WatchSettings.load(tmp_path / "watch.toml"))
    assert [camera.name for camera in changes(*read).changed] == ["a"]


@pytest.mark.parametrize(
    "other",
    [
        {"gate": {"budget_ms": 0.5, "policy": "random"}},
        {"tasks": ({**TASKS[0], "step": 9},)},
        {"models": ({"name": "model", "python": "m:g"},)},
        {"results": {"keep_days": 1.0}},
        {"metrics": {"port": 0}},
        {"mqtt": {"host": "broker"}},
        {"webhooks": ({"name": "a", "url": "https://a/", "secret_env": "A"},)},
        {"reload": {"on_change": True}},
    ],
)
def test_what_else_changes_takes_a_restart(
    other: dict[str, Any], tmp_path: Path, clips: Path
) -> None:
    with pytest.raises(SettingsError, match=rf"\[{next(iter(other))}\] did.*start again"):
        changes(settings(tmp_path, clips, "a"), settings(tmp_path, clips, "a", "b", **other))


def test_cameras_come_go_and_change_while_others_run_on(tmp_path: Path, clips: Path) -> None:
    witness, kept = Witness(say=lambda frame: float(frame.luma().mean())), Kept()
    enough = {"gate": {"budget_ms": 8.0}}  # for a look at each, whatever else the machine does
    first = settings(tmp_path, clips, "stays", "goes", "turns", **enough)
    second = settings(tmp_path, clips, "comes", "turns=bottle-detection", "stays", **enough)
    with gateway(first, stages=[witness], kept=kept) as running:
        play(running, 4.0)
        before = of(running)
        seen = len(witness.frames)
        running.reload(lambda: second)
        assert running.settings is second
        assert list(of(running)) == ["comes", "turns", "stays"]
        assert of(running)["stays"] == before["stays"] > 0
        assert of(running)["turns"] == of(running)["comes"] == 0
        play(running, 4.0)
        after = {camera.name: camera for camera in running.status.cameras}
    assert after["stays"].arrived > before["stays"]
    assert after["stays"].stream.connections == 1
    for camera in after.values():
        assert camera.stream.state is State.LIVE
        assert camera.looks > 0
    assert running.status.reloads == 1
    assert running.status.refused is None
    assert "goes" not in {name for name, *_ in witness.frames[seen:]}
    films = {"turns": "bottle-detection"}
    for name, pts, _, pixels in witness.frames[seen:]:
        film = clips / f"{films.get(name, 'car-detection')}.mp4"
        assert whole(film)[pts] == pixels
    times = [time for name, _, time, _ in witness.frames if name == "stays"]
    assert times == sorted(times)
    removed = [each["camera"] for each in kept.of("state") if each["state"] == "removed"]
    assert removed == ["goes", "turns"]


def test_budget_and_thresholds_change_while_cameras_run_on(tmp_path: Path, clips: Path) -> None:
    def bright(frame: StreamFrame) -> Seen:
        return float(frame.time > 6.0)

    def with_(hold_s: float, budget_ms: float) -> WatchSettings:
        task = {**TASKS[0], "measure": "presence", "hold_s": hold_s, "looks": 1}
        return settings(tmp_path, clips, "a", tasks=(task,), gate={"budget_ms": budget_ms})

    kept = Kept()
    with gateway(with_(100.0, 0.5), stages=[Witness(say=bright)], kept=kept) as running:
        play(running, 8.0)
        granted = running.status.granted_ms
        assert not kept.of("event"), "it does not hold for long enough"
        running.reload(lambda: with_(0.0, 2.5))
        assert (running.status.refused, running.status.reloads) == (None, 1)
        assert running.status.budget_cores == 2.5 / 40
        rounds = running.status.rounds
        play(running, 3.0)
        (camera,) = running.status.cameras
        assert camera.stream.connections == 1
        more = running.status.rounds - rounds
        assert running.status.granted_ms - granted == pytest.approx(2.5 * more)
    (event,) = kept.of("event")
    assert event["time"] == pytest.approx(6.0, abs=0.5), "what was in view before stays so"


def test_a_detector_takes_another_threshold() -> None:
    class Fake:
        least_score = 0.3

    fake = Fake()
    stage = DetectorStage("m", fake)  # type: ignore[arg-type]
    stage.change(ModelSettings(name="m", python="a:b", least_score=0.8))
    assert fake.least_score == 0.8


@pytest.mark.parametrize("bad", ["unreadable", "fixed", "live"])
def test_a_bad_configuration_is_refused_whole(
    bad: str, tmp_path: Path, clips: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = settings(tmp_path, clips, "a", "b")

    def load() -> WatchSettings:
        if bad == "unreadable":
            raise SettingsError("watch.toml is not valid TOML")
        if bad == "fixed":
            return settings(tmp_path, clips, "a", "c", gate={"tick_ms": 20.0})
        cameras = {"a": clips / "car-detection.mp4", "c": "rtsp://u:hunter22@127.0.0.1:1/x"}
        return settings_of(tmp_path, cameras, tasks=TASKS, gate={"budget_ms": 0.5})

    with gateway(first, stages=[Witness(say=lambda frame: 1.0)]) as running:
        play(running, 2.0)
        before = of(running)
        running.reload(load)
        assert running.settings is first
        assert of(running) == before
        status = running.status
        assert status.refused
        assert status.refused in caplog.text
        assert document(status)["reload_refused"] == status.refused
        assert f"refused: {status.refused}" in line(status)
        assert "hunter22" not in caplog.text + line(status)
        play(running, 2.0)
        assert all(of(running)[name] > before[name] for name in before)
        running.reload(lambda: first)
        assert running.status.refused is None
        assert running.status.reloads == 1


def test_metrics_tell_of_a_refusal(tmp_path: Path, clips: Path) -> None:
    httpx = pytest.importorskip("httpx")

    def wrong() -> WatchSettings:
        raise SettingsError("no")

    with gateway(settings(tmp_path, clips, "a")) as running:
        server = MetricsServer(lambda: running.status, host="127.0.0.1", port=0)
        try:
            url = f"http://127.0.0.1:{server.port}/metrics"
            assert "triparty_device_reload_refused 0.0" in httpx.get(url).text
            running.reload(wrong)
            assert "triparty_device_reload_refused 1.0" in httpx.get(url).text
        finally:
            server.stop()


def test_a_camera_whose_password_changed_is_opened_anew(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("first")
    row = {"url": "http://u@127.0.0.1:1/x", "password_file": "password"}
    only = settings_of(tmp_path, {"a": row, "b": {"url": "http://v:w@127.0.0.1:1/x"}})
    with gateway(only, clock=WallClock()) as running:
        (tmp_path / "password").write_text("second")
        kept = {camera.name: camera.source for camera in running._cameras}
        running.reload(lambda: only)
        now = {camera.name: camera.source for camera in running._cameras}
    assert now["a"] is not kept["a"]
    assert now["b"] is kept["b"]


def test_a_file_is_due_when_asked_or_when_it_is_another(tmp_path: Path) -> None:
    file = tmp_path / "watch.toml"
    file.write_text("a")
    patient, eager = (Reloader(file, on_change=wanted) for wanted in (False, True))
    assert not patient.is_due()
    assert not eager.is_due()
    for each in (patient, eager):
        each.ask()
        assert each.is_due()
        assert not each.is_due()
    new = tmp_path / "new"
    new.write_text("b")
    file.unlink()
    assert not eager.is_due()  # an editor is about to put another in its place
    os.replace(new, file)
    assert eager.is_due()
    assert not eager.is_due()
    assert not patient.is_due()


def test_a_camera_that_came_later_is_shown_to_the_models_that_it_asks(
    tmp_path: Path, clips: Path
) -> None:
    film = clips / "car-detection.mp4"
    models = tuple({"name": name, "python": "m:f"} for name in ("m", "n"))
    tasks = tuple({"name": f"of {m['name']}", "model": m["name"]} for m in models)
    stages = [FunctionStage(model["name"], lambda rgb: 1.0) for model in models]
    more: dict[str, Any] = {"models": models, "tasks": tasks}
    first = settings_of(tmp_path, {"a": film}, **more)
    later = {"url": str(film), "tasks": ("of n",)}
    second = settings_of(tmp_path, {"a": film, "b": later}, **more)
    kept = Kept()
    with gateway(first, stages=stages, kept=kept) as running:
        running.reload(lambda: second)
        play(running, 2.0)
    seen = {(each["camera"], *sorted(each["seen"])) for each in kept.of("result")}
    assert seen == {("a", "m", "n"), ("b", "n")}
