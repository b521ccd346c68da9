"""What becomes of the rest of a round's budget in the whole loop."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from video_encodings import Encodings
from watched import Witness, gateway, settings_of, whole

from triparty.device.gate.policies import POLICIES
from triparty.device.gateway import rounds
from triparty.device.gateway.clock import VirtualClock
from triparty.device.gateway.settings import WatchSettings
from triparty.device.gateway.status import GatewayStatus
from triparty.device.gateway.watching import make_gateway

ROUND_MS = 0.4


def settings(encodings: Encodings, folder: Path, **gate: Any) -> WatchSettings:
    names = ("h264-cbr-50", "h264-b-pyramid", "h265-closed", "vp9-altref", "mpeg4-b")
    return settings_of(
        folder,
        {name: encodings.path(name) for name in names},
        gate={"budget_ms": ROUND_MS, "max_staleness_s": None, **gate},
        models=(),
    )


def run(encodings: Encodings, folder: Path, leftover: str) -> tuple[GatewayStatus, Witness]:
    witness = Witness()
    made = settings(encodings, folder, leftover=leftover)
    with gateway(made, stages=[witness], policy="random") as running:
        running.run()
        return running.status, witness


def test_beginnings_of_chains_are_decoded_and_shown_to_nobody(
    encodings: Encodings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = list[Any]()
    decide = rounds.decide

    def spied(*args: Any, **more: Any) -> Any:
        picked = decide(*args, **more)
        begun.extend(pick for pick in picked if pick.closure.part)
        return picked

    monkeypatch.setattr("triparty.device.gateway.gateway.decide", spied)
    status, witness = run(encodings, tmp_path, "prefix")
    assert len(begun) > 10
    selected = sum(camera.selected for camera in status.cameras)
    assert len(witness.frames) == selected
    assert sum(camera.failures for camera in status.cameras) == 0
    for name, pts, _, pixels in witness.frames:
        assert pixels == whole(encodings.path(name))[pts], f"{name} differs at {pts}"
    assert status.charged_ms <= ROUND_MS * status.rounds + max(p.cost_ms for p in begun) + 25
    begun.clear()
    run(encodings, tmp_path, "stop")
    assert not begun


@pytest.mark.parametrize("policy", ["temporal", "feedback_only", "keyframes"])
@pytest.mark.parametrize("given", [None, "stop"])
def test_the_loop_treats_what_is_left_as_its_policy_says_unless_told(
    policy: str,
    given: str | None,
    encodings: Encodings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    used = set[str]()
    choose = rounds.choose

    def spied(*args: Any, leftover: str, **more: Any) -> Any:
        used.add(leftover)
        return choose(*args, leftover=leftover, **more)

    monkeypatch.setattr(rounds, "choose", spied)
    made = settings(encodings, tmp_path, policy=policy, leftover=given)
    running = make_gateway(made, clock=VirtualClock())
    running.run(seconds=0.5)
    assert running.close()
    assert used == {given or POLICIES[policy].leftover}


def test_the_printed_loop_overshoots_and_pays_off(encodings: Encodings, tmp_path: Path) -> None:
    status, _ = run(encodings, tmp_path, "paper")
    assert sum(camera.selected for camera in status.cameras) > 10
    assert status.measured_ms < ROUND_MS * status.rounds + 25
