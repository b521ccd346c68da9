"""Frames that were decoded only because others need them: pixels for free, looks are not."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from packet_graphs import entry, packet, slotted, trailing
from video_encodings import RATE, Encodings
from watched import Kept, Witness, gateway, settings_of, whole

from triparty.device.gate.policies import make
from triparty.device.gate.policy import Arrivals, Column, Offers
from triparty.device.gateway.frames import StreamFrame
from triparty.device.gateway.rounds import MOST_BESIDE, shown_beside
from triparty.device.gateway.stages import PASS, Seen, Verdict
from triparty.device.gateway.status import GatewayStatus
from triparty.device.streams.reachability import Closure

LOOKS = 12.5  # every second picture


def brightness(frame: StreamFrame) -> Seen:
    return float(frame.luma().mean())


class Filter(Witness):
    """Sees dependencies if it wants to, and finds all of them redundant, or nothing."""

    def __init__(self, *, wants: bool, redundant: bool) -> None:
        super().__init__("filter")
        self.wants_dependencies = wants
        self._redundant = redundant
        self.chosen = list[bool]()

    def process(self, frames: Sequence[StreamFrame]) -> Sequence[Verdict]:
        super().process(frames)
        self.chosen += [frame.selected for frame in frames]
        return [
            Verdict(redundant=True) if self._redundant and not f.selected else PASS
            for f in frames
        ]


class Sparse:
    """Chooses a picture in ten, and keeps what it is told."""

    def __init__(self) -> None:
        self._inner = make("round_robin")
        self.heard = list[Any]()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def value(self, arrivals: Arrivals, offers: Offers) -> Column:
        number = np.rint(arrivals.time[offers.arrivals] * RATE).astype(int)
        value = self._inner.value(arrivals, offers)
        return np.where(number % 10 == 9, value, -np.inf)

    def learn(self, feedback: Any) -> None:
        self.heard.append(feedback)


def watched(
    encodings: Encodings, folder: Path, filters: Sequence[Filter] = (), *, observe: bool = False
) -> tuple[GatewayStatus, Witness, Sparse, Kept]:
    names = ("h264-b-pyramid", "h265-open", "vp9-altref")
    settings = settings_of(
        folder,
        {name: encodings.path(name) for name in names},
        gate={"budget_ms": 100.0, "observe_dependencies": observe},
        defaults={"looks_per_s": LOOKS},
        tasks=[{"name": "light", "model": "model", "measure": "value", "step": 0.01}],
    )
    model, policy, kept = Witness(say=brightness), Sparse(), Kept()
    with gateway(settings, stages=[*filters, model], policy=policy, kept=kept) as running:  # type: ignore[arg-type]
        running.run()
        status = running.status
    for stage in (model, *filters):
        for name, pts, _, pixels in stage.frames:
            assert pixels == whole(encodings.path(name))[pts]
    assert sum(c.decoded for c in status.cameras) > 3 * sum(c.selected for c in status.cameras)
    return status, model, policy, kept


def test_models_do_not_look_at_dependencies_unless_told(
    encodings: Encodings, tmp_path: Path
) -> None:
    status, model, policy, _ = watched(encodings, tmp_path)
    assert len(model.frames) == sum(camera.selected for camera in status.cameras)
    assert not any(camera.observed for camera in status.cameras)
    assert np.concatenate([f.selected for f in policy.heard]).all()


def test_models_look_at_dependencies_if_told_and_that_counts(
    encodings: Encodings, tmp_path: Path
) -> None:
    status, model, policy, kept = watched(encodings, tmp_path, observe=True)
    selected = sum(camera.selected for camera in status.cameras)
    observed = sum(camera.observed for camera in status.cameras)
    assert observed > 5
    assert len(model.frames) == selected + observed
    flags = np.concatenate([f.selected for f in policy.heard])
    assert (flags.sum(), (~flags).sum()) == (selected, observed)
    told = kept.of("result")
    assert sum(not each["selected"] for each in told) == observed


@pytest.mark.parametrize("redundant", [True, False])
def test_a_filter_that_wants_them_forces_no_model(
    redundant: bool, encodings: Encodings, tmp_path: Path
) -> None:
    wanting = Filter(wants=True, redundant=redundant)
    status, model, policy, kept = watched(encodings, tmp_path, [wanting])
    observed = sum(camera.observed for camera in status.cameras)
    assert observed == wanting.chosen.count(False) > 5
    assert len(model.frames) == wanting.chosen.count(True)
    assert sum(camera.looks for camera in status.cameras) == len(model.frames)
    assert len(kept.of("result")) == len(model.frames)
    rewards = np.concatenate([f.reward[~f.selected] for f in policy.heard])
    assert len(rewards) == (observed if redundant else 0)
    assert not np.nansum(rewards)


def test_a_filter_that_does_not_want_them_gets_none(
    encodings: Encodings, tmp_path: Path
) -> None:
    plain = Filter(wants=False, redundant=True)
    watched(encodings, tmp_path, [plain])
    assert all(plain.chosen)


def test_few_frames_are_shown_beside_a_target() -> None:
    pictures = [entry(), *[trailing()] * 59]
    chain = Closure(tuple(packet(n, p) for n, p in enumerate(pictures)))
    assert shown_beside(chain, LOOKS) == {59 - 2 * n for n in range(1, MOST_BESIDE + 1)}
    assert len(shown_beside(chain, 1.0)) == 2
    hidden = Closure((packet(0, slotted(0, 1, shown=False)), packet(9, trailing())))
    assert shown_beside(hidden, 25.0) == frozenset()
