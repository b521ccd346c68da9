"""The recall audit in the loop: what it finds is so, and gating does not notice it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import av
import httpx
import numpy as np
import pytest
from video_encodings import Encodings
from watched import Kept, Witness, gateway, settings_of, whole

from triparty.device.gate.traces import Task
from triparty.device.gateway.audit import Group
from triparty.device.gateway.frames import Purpose, StreamFrame
from triparty.device.gateway.looking import Looker
from triparty.device.gateway.metrics import MetricsServer
from triparty.device.gateway.stages import Chain, Outcome, Seen
from triparty.device.gateway.status import GatewayStatus, document, line

NAMES = ("h264-baseline", "h264-b-pyramid", "h265-closed")  # groups of 12 pictures
STEP = 0.05
PLENTY_MS = 200.0


def brightness(frame: StreamFrame) -> Seen:
    return float(frame.luma().mean())


def watched(
    encodings: Encodings,
    folder: Path,
    *,
    share: float,
    budget_ms: float = PLENTY_MS,
    seconds: float | None = None,
    **defaults: Any,
) -> tuple[GatewayStatus, Witness, Kept]:
    settings = settings_of(
        folder,
        {name: encodings.path(name) for name in NAMES},
        gate={"budget_ms": budget_ms, "audit_share": share, "max_staleness_s": None},
        defaults={"looks_per_s": 240, "loop": seconds is not None} | defaults,
        tasks=[{"name": "light", "model": "model", "measure": "value", "step": STEP}],
    )
    model, kept = Witness(say=brightness), Kept()
    with gateway(settings, stages=[model], policy="keyframes", kept=kept, seed=1) as running:
        running.run(seconds=seconds)
        return running.status, model, kept


def truth_of(path: Path) -> dict[float, float]:
    with av.open(str(path)) as container:
        frames = [
            (f.time or 0.0, f.to_ndarray()[: f.height]) for f in container.decode(video=0)
        ]
    first = frames[0][0]
    return {round(time - first, 3): float(luma.mean()) for time, luma in frames}


def steps(value: float) -> int:
    return round(value / STEP)


def held(looks: Mapping[float, float], time: float) -> float | None:
    before = [then for then in looks if then <= time + 1e-6]
    return looks[max(before)] if before else None


def test_with_money_for_all_groups_the_audit_finds_the_truth(
    encodings: Encodings, tmp_path: Path
) -> None:
    status, model, kept = watched(encodings, tmp_path, share=0.5)
    pictures = right = 0
    for name in NAMES:
        mine = [each for each in kept.of("result") if each["camera"] == name]
        looks = {each["time"]: each["answers"]["light"] for each in mine}
        shift = min(looks)
        looks = {round(time - shift, 3): answer for time, answer in looks.items()}
        truth = truth_of(encodings.path(name))
        whole_groups = sorted(looks)[-1]  # of the last one nobody knows that it ended
        for time, value in truth.items():
            if time < whole_groups - 1e-6:
                answer = held(looks, time)
                pictures += 1
                right += answer is not None and steps(answer) == steps(value)
    assert status.audited_groups == 4 * len(NAMES)
    for name, pts, _, pixels in model.frames:
        assert pixels == whole(encodings.path(name))[pts], "an audited frame is not exact"
    found = status.audits["light"].accuracy
    assert 0.1 < found.share < 0.9, "nothing to tell apart"
    assert found.share == pytest.approx(right / pictures, abs=0.01)
    assert len(model.frames) == pytest.approx(pictures + len(kept.of("result")), rel=0.25)


def test_gating_does_not_notice(encodings: Encodings, tmp_path: Path) -> None:
    runs = [watched(encodings, tmp_path, share=share) for share in (0.0, 0.5)]
    without, audited = (
        [(r["camera"], r["time"], r["answers"], r["selected"]) for r in kept.of("result")]
        for _, _, kept in runs
    )
    assert sorted(map(str, without)) == sorted(map(str, audited))
    figures = [
        [(c.selected, c.decoded, c.looks, c.news, c.observed) for c in status.cameras]
        for status, _, _ in runs
    ]
    assert figures[0] == figures[1]
    assert not runs[0][0].audits
    assert runs[1][0].audit_ms > 0.0 == runs[0][0].audit_ms


def test_audits_beside_a_gate_change_no_frame_and_ask_no_filter(
    encodings: Encodings, tmp_path: Path
) -> None:
    settings = settings_of(
        tmp_path,
        {name: encodings.path(name) for name in NAMES},
        gate={"budget_ms": 2.0, "audit_share": 0.5, "max_staleness_s": None},
        tasks=[{"name": "light", "model": "model", "measure": "value"}],
    )
    model, other = Witness(say=brightness), Witness("filter")
    with gateway(settings, stages=[other, model], policy="random", seed=1) as running:
        running.run()
        status = running.status
    assert status.audited_groups
    assert not any(camera.failures for camera in status.cameras)
    for name, pts, _, pixels in model.frames:
        assert pixels == whole(encodings.path(name))[pts]
    assert len(other.frames) == sum(camera.looks for camera in status.cameras)
    assert len(model.frames) > len(other.frames)


def test_audits_keep_to_their_share(encodings: Encodings, tmp_path: Path) -> None:
    status, _, _ = watched(encodings, tmp_path, share=0.1, budget_ms=1.0, seconds=12.0)
    granted = status.rounds * 1.0
    assert status.audited_groups > 4
    assert 0.02 * granted < status.audit_ms < 0.3 * granted
    assert status.charged_ms <= granted + 20.0  # one closure's debt
    assert status.measured_ms <= granted + 25.0


def test_few_frames_of_a_group_are_looked_at(encodings: Encodings, tmp_path: Path) -> None:
    status, model, kept = watched(encodings, tmp_path, share=0.5, looks_per_s=6.25)
    looked_at_by_audits = len(model.frames) - len(kept.of("result"))
    assert looked_at_by_audits == pytest.approx(status.audited_groups * 3, rel=0.4)


def test_what_is_found_is_told(encodings: Encodings, tmp_path: Path) -> None:
    status, _, _ = watched(encodings, tmp_path, share=0.5)
    told = json.loads(json.dumps(document(status), allow_nan=False))["audit"]
    assert told["groups"] == status.audited_groups
    accuracy = told["tasks"]["light"]["accuracy"]
    assert 0 <= accuracy["low"] <= accuracy["share"] <= accuracy["high"] <= 1
    assert "right by audit: light" in line(status)
    server = MetricsServer(lambda: status, host="127.0.0.1", port=0)
    try:
        text = httpx.get(f"http://127.0.0.1:{server.port}/metrics").text
    finally:
        server.stop()
    assert 'triparty_device_audit_accuracy{task="light",value="low"}' in text
    assert f"audited_groups_total {status.audited_groups}" in text


TASK = Task("count", "model", "count")


def group(looks: Sequence[tuple[float, int]], truth: Sequence[int]) -> Group:
    made = Group(0.5, [(-np.inf, {}), *((time, {"count": n}) for time, n in looks)])
    made.truth = [(float(time), {"count": n}) for time, n in enumerate(truth)]
    return made


@pytest.mark.parametrize(
    ("looks", "truth", "right", "changes", "caught"),
    [
        ([], [0, 0, 0], 0, 0, 0),
        ([(0, 0)], [0, 0, 0], 3, 0, 0),
        ([(0, 0)], [0, 1, 1], 1, 1, 0),
        ([(0, 0), (2, 1)], [0, 1, 1], 2, 1, 1),
        ([(0, 0), (3, 0)], [0, 1, 1, 0, 0], 3, 2, 1),
        ([(0, 0), (4, 0)], [0, 1, 0, 1, 0], 3, 4, 1),
    ],
)
def test_a_group_is_compared(
    looks: list[tuple[float, int]], truth: list[int], right: int, changes: int, caught: int
) -> None:
    found = group(looks, truth).found(TASK)
    assert (found.pictures, found.right) == (len(truth), right)
    assert (found.changes, found.caught) == (changes, caught)
    assert found.probability == 0.5


def test_what_nobody_chose_is_dropped_first_and_that_is_told() -> None:
    heard = list[Outcome]()
    looker = Looker(Chain([]), heard.extend, most=3)
    looker.stop(5)
    purposes = [Purpose.CHOSEN, Purpose.AUDIT, Purpose.WHOLE, Purpose.CHOSEN, Purpose.CHOSEN]
    frames = [
        StreamFrame("a", 0, 0, n, float(n), float(n), True, image=Any, purpose=purpose)  # type: ignore[arg-type]
        for n, purpose in enumerate(purposes)
    ]
    for frame in frames:
        looker.show(frame)
    assert [(outcome.frame.pts, outcome.failed) for outcome in heard] == [(1, True), (0, True)]
    assert looker.dropped == 2
