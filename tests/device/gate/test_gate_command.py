"""`triparty device gate`: a trace of a real clip, a report, a gate, a replay."""

from __future__ import annotations

import json
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from made_traces import FREE_B, made_trace
from typer.testing import CliRunner
from video_encodings import Encodings

from triparty.common.errors import SettingsError, TraceError
from triparty.device.cli_gate import app
from triparty.device.gate import report_saving
from triparty.device.gate.trace_files import read_trace, write_trace

pytest.importorskip("av")
pytest.importorskip("onnxruntime")

Call = Callable[..., str]


@pytest.fixture
def call() -> Call:
    def run(*arguments: object) -> str:
        answer = CliRunner().invoke(app, [str(one) for one in arguments])
        if answer.exception is not None:
            raise answer.exception
        return answer.stdout

    return run


@pytest.fixture
def made(tmp_path: Path) -> Path:
    path = tmp_path / "made.npz"
    write_trace(made_trace(FREE_B, groups=40), path)
    return path


def as_json(text: str) -> dict[str, Any]:
    return dict(json.loads(text))


def test_a_trace_of_a_clip_types_times_and_labels_it(
    call: Call, test_data: Path, tmp_path: Path
) -> None:
    clip = test_data / "clips" / "one-by-one-person-detection.mp4"
    detector = test_data / "models" / "detectors" / "FastestDet.onnx"
    target = tmp_path / "people.npz"
    said = as_json(
        call(
            *("trace", clip, "-o", target, "--packets", 40, "--detector", detector),
            *("--task", "people=count:0", "--task", "where=boxes", "--json"),
        )
    )
    assert said["packets"] == 40
    trace = read_trace(target)
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert [task.name for task in trace.tasks] == ["people", "where"]
    assert trace.models == ("motion", "FastestDet")
    assert (trace.packets.cost_ms > 0).all()
    assert len(trace.results) == 2 * 40
    assert set(trace.packets.type.tolist()) == {1, 2, 3}


def test_a_report_of_a_clip_speaks_to_people_and_to_scripts(
    call: Call, test_data: Path
) -> None:
    clip = test_data / "clips" / "car-detection.mp4"
    text = call("report", clip, "--packets", 60, "--inference-fps", 100)
    assert "h264 768x432" in text
    assert "T_inference" in text
    said = as_json(call("report", clip, "--packets", 60, "--json"))
    assert said["free_share"] == 0.0
    assert said["signals"][0]["of"] == "motion"
    assert any("B-frames" in line for line in said["advice"])


def test_a_report_of_labels_says_what_can_be_saved(
    call: Call, made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report_saving, "SHARES", (0.1, 0.6))
    monkeypatch.setattr(report_saving, "SECONDS", 10.0)
    said = as_json(call("report", made, "--json"))
    assert [one["tolerance_s"] for one in said["saving"]] == [0.0, 1.0]
    assert all(one["share"] > 0 for one in said["saving"])
    assert "90% right" in call("report", made)


def test_a_replay_reports_what_scripts_rely_on(call: Call, made: Path, tmp_path: Path) -> None:
    said = as_json(
        call(
            *("replay", made, "--policy", "keyframes", "--policy", "ours", "--streams", 5),
            *("--budget", 0.5, "--budget-share", 0.5, "--seconds", 4, "--json"),
            *("--plot", tmp_path / "plot.svg"),
        )
    )
    assert said["policy"] == "keyframes"
    assert said["streams"] == 5
    assert said["budget_ms_per_round"] == 0.5
    assert 0 < said["accuracy"] < 1
    assert 0 < said["decode_ms"] < said["full_decode_ms"]
    assert said["max_staleness_s"] > 0
    assert [run["policy"] for run in said["runs"]] == ["keyframes"] * 2 + ["ours"] * 2
    assert b"<svg" in (tmp_path / "plot.svg").read_bytes()
    assert "keyframes" in call("replay", made, "--policy", "keyframes", "--seconds", 1)
    assert not said["audits"]


def test_a_replay_says_what_audits_would_have_said(call: Call, made: Path) -> None:
    words = ("replay", made, "--streams", 5, "--seconds", 4, "--audit", 1)
    found = as_json(call(*words, "--json"))["audits"]
    assert found[0]["audited"] == found[0]["groups"] > 0
    for one in found:
        for name in ("accuracy", "recall"):
            assert one[name]["estimate"] == pytest.approx(one[name]["true"])
    text = call(*words)
    assert "audits" in text
    assert f"{found[0]['audited']} of {found[0]['groups']}" in text


def test_a_gate_is_fitted_and_replayed(call: Call, made: Path, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    said = as_json(
        call("fit", made, "-o", tmp_path / "gate", "--epochs", 1, "--task", "people", "--json")
    )
    assert said["tasks"] == ["people"]
    assert said["samples"] > 0
    told = as_json(call(*shared(made), "--gate", tmp_path / "gate"))
    assert told["policy"] == "ours"
    assert 0 < told["accuracy"] <= 1
    assert told["decode_ms"] > 0


def shared(made: Path) -> tuple[object, ...]:
    return ("replay", made, "--task", "people", "--streams", 4, "--seconds", 3, "--json")


def test_each_published_policy_runs_the_gate_that_was_fitted_for_it(
    call: Call, made: Path, tmp_path: Path
) -> None:
    pytest.importorskip("torch")
    kinds = {"paper": "published", "contextual": "contextual"}
    fit = ("fit", made, "--epochs", 1, "--task", "people", "--network")
    for policy, kind in kinds.items():
        said = call(*fit, kind, "-o", tmp_path / kind)
        assert f"--gate {tmp_path / kind} --policy {policy}" in said
    gates = [word for kind in kinds.values() for word in ("--gate", tmp_path / kind)]
    runs = as_json(call(*shared(made), *gates, "--policy", "all"))["runs"]
    by_name = {run.pop("policy"): run for run in runs}
    assert by_name["paper"] != by_name["contextual"]
    assert "ours" not in by_name  # its gate is missing
    words = (*shared(made), "--gate", tmp_path / "contextual", "--policy", "contextual")
    (alone,) = as_json(call(*words))["runs"]
    assert alone == {"policy": "contextual", **by_name["contextual"]}
    with pytest.raises(SettingsError, match="'wide': expected one of extended, published, con"):
        call(*fit, "wide", "-o", tmp_path / "wide")


def test_a_replay_checks_all_policies_before_the_first(
    call: Call, made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def replayed(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr("triparty.device.gate.replay.Replay.run", replayed)
    words = ("replay", made, "--policy", "keyframes", "--policy")
    with pytest.raises(SettingsError, match=r"'paper'.*--network published.*--gate"):
        call(*words, "paper")
    with pytest.raises(SettingsError, match="'magic'"):
        call(*words, "magic")
    with pytest.raises(AssertionError):
        call(*words, "round_robin")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("trace", "rtsp://me:secret@camera/1", "-o", "a.npz"), "how many --packets"),
        (("trace", "clip.mp4", "-o", "a.txt"), r"ends in .npz"),
        (("trace", "clip.mp4", "-o", "a.npz", "--task", "a=count"), "--detector"),
        (("report", "clip.mp4", "--filter-rate", "1"), "--filter-rate"),
        (("replay", "MADE", "--streams", "0"), "--streams"),
        (("replay", "MADE", "--task", "colour"), "no trace answers colour"),
        (("replay", "MADE", "--policy", "magic", "--seconds", "1"), "magic"),
        (("replay", "MADE", "--policy", "paper", "--seconds", "1"), "gate fit"),
        (("replay", "MADE", "--seconds", "1", "--plot", "plot.pdf"), "png or .svg"),
    ],
)
def test_what_cannot_be_done_says_so(
    call: Call, made: Path, arguments: tuple[str, ...], message: str
) -> None:
    with pytest.raises(SettingsError, match=message) as raised:
        call(*(str(made) if one == "MADE" else one for one in arguments))
    assert "secret" not in raised.value.message


def test_a_camera_that_cannot_be_read_keeps_its_password(call: Call, tmp_path: Path) -> None:
    url = "rtsp://me:secret@127.0.0.1:9/1"
    with pytest.raises(TraceError) as raised:
        call("trace", url, "-o", tmp_path / "a.npz", "--packets", 3)
    assert "secret" not in raised.value.message
    with pytest.raises(TraceError, match="cannot be read"):
        call("report", tmp_path / "absent.mp4")


def test_codecs_go_by_their_own_names(call: Call, test_data: Path, tmp_path: Path) -> None:
    encodings = Encodings(test_data / "clips", tmp_path / "encodings")
    for name, codec in (("av1", "av1"), ("h264-intra-refresh", "h264")):
        said = as_json(call("report", encodings.path(name), "--json"))
        assert said["codec"] == codec
        refreshed = name == "h264-intra-refresh"
        assert (said["ungateable"] is not None) == refreshed
        assert any("decoded whole" in line for line in said["advice"]) == refreshed
