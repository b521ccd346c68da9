"""The live loop under its budget: what decoding really took, against what was granted.

Cases for the suite `gating`. The gateway itself runs on looped clips in virtual time: its
sources, rounds, decoding threads, settling and audits are those of `triparty device watch`, and
CPU is that of the decoding threads as it reads it. More is wanted than the budget allows.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

from benchmarks.gating_exactness import CLIPS, clips_folder
from benchmarks.harness import BenchError, Case, Effort, case
from triparty.device.gateway.clock import VirtualClock
from triparty.device.gateway.settings import CameraSettings, GateSettings, WatchSettings
from triparty.device.gateway.status import GatewayStatus
from triparty.device.gateway.watching import make_gateway

CAMERAS = 12
BUDGET_MS = 2.0
SECONDS, QUICK_SECONDS = 60.0, 10.0
POLICIES = ("round_robin", "ours")


@cache
def _run(policy: str, seconds: float, run: int) -> GatewayStatus:
    """How the gateway stood after so much film; each `run` is one of its own."""
    cameras = tuple(
        CameraSettings(
            name=f"{run}-{number}",
            url=str(clips_folder() / f"{CLIPS[number % len(CLIPS)]}.mp4"),
            loop=True,
        )
        for number in range(CAMERAS)
    )
    settings = WatchSettings(
        cameras=cameras, gate=GateSettings(policy=policy, budget_ms=BUDGET_MS)
    )
    gateway = make_gateway(settings, clock=VirtualClock())
    try:
        gateway.run(seconds=seconds)
    finally:
        if not gateway.close():
            raise BenchError("a thread of the gateway did not end")
    return gateway.status


def _runs(policy: str, effort: Effort) -> Iterator[GatewayStatus]:
    for run in range(1 if effort.quick else 3):
        yield _run(policy, QUICK_SECONDS if effort.quick else SECONDS, run)


def _kept(policy: str) -> Case:
    @case(
        f"live loop, {CAMERAS} cameras, 60 s, '{policy}': measured decode CPU over the budget",
        unit="ratio",
        better="lower",
        target=1.05,
        reference="all that was granted; a closure's debt is settled by its measured cost",
    )
    def kept(effort: Effort) -> Iterator[float]:
        for status in _runs(policy, effort):
            yield status.measured_ms / status.granted_ms

    return kept


def _off(policy: str) -> Case:
    @case(
        f"live loop, {CAMERAS} cameras, 60 s, '{policy}': decode CPU off the budget used",
        unit="share off",
        better="lower",
        target=0.05,
        reference="the budget without what nobody used within a second",
    )
    def off(effort: Effort) -> Iterator[float]:
        for status in _runs(policy, effort):
            yield abs(status.measured_ms / (status.granted_ms - status.lapsed_ms) - 1)

    return off


LIVE = tuple(make(policy) for policy in POLICIES for make in (_kept, _off))
"""The cases, for the suite."""
