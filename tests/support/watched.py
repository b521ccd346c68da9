"""Gateways for tests: stages that remember what they saw, sinks that keep what was written."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import av

from triparty.device.gate.policies import make
from triparty.device.gate.policy import Policy
from triparty.device.gate.traces import Task
from triparty.device.gateway.clock import Clock, VirtualClock
from triparty.device.gateway.frames import StreamFrame
from triparty.device.gateway.gateway import Gateway
from triparty.device.gateway.outputs import Outputs
from triparty.device.gateway.results import Document
from triparty.device.gateway.rounds import leftover_of
from triparty.device.gateway.settings import WatchSettings
from triparty.device.gateway.stages import Seen, Stage, Verdict


def fingerprint(image: av.VideoFrame) -> str:
    """Of a frame's pixels, as decoded."""
    digest = hashlib.sha256(image.format.name.encode())
    digest.update(image.to_ndarray().tobytes())
    return digest.hexdigest()[:16]


@cache
def whole(path: Path) -> dict[int, str]:
    """The fingerprint of each frame of a full decode, by its presentation stamp."""
    with av.open(str(path)) as container:
        return {frame.pts: fingerprint(frame) for frame in container.decode(video=0)}


class Witness:
    """A stage that remembers every frame, and answers by a function."""

    def __init__(self, name: str = "model", say: Callable[[StreamFrame], Seen] | None = None):
        self.name = name
        self.frames: list[tuple[str, int, float, str]] = []
        self.closed = False
        self._say = say

    def process(self, frames: Sequence[StreamFrame]) -> Sequence[Verdict]:
        for frame in frames:
            row = (frame.stream, frame.pts, frame.time, fingerprint(frame.image))
            self.frames.append(row)
        return [Verdict({self.name: self._say(f)} if self._say else {}) for f in frames]

    def cpu_ms(self) -> float | None:
        return None

    def close(self) -> None:
        self.closed = True


class Kept:
    """A sink that keeps documents."""

    def __init__(self) -> None:
        self.documents: list[Document] = []
        self.closed = False

    def write(self, documents: Sequence[Document], now: float) -> None:
        self.documents += documents

    def close(self) -> None:
        self.closed = True

    def of(self, kind: str) -> list[Document]:
        return [each for each in self.documents if each["type"] == kind]


def settings_of(folder: Path, cameras: dict[str, Any], **tables: Any) -> WatchSettings:
    """Settings of cameras: each an address, or a table."""
    rows = [
        {"name": name, **(row if isinstance(row, dict) else {"url": str(row)})}
        for name, row in cameras.items()
    ]
    defaults = tables.pop("defaults", {})
    tables["gate"] = {"audit_share": 0.0} | tables.get("gate", {})  # coins are for their tests
    tables.setdefault("models", ({"name": "model", "python": "m:f"},))
    return WatchSettings.model_validate(
        {"folder": folder, "cameras": [defaults | row for row in rows], **tables}
    )


@contextmanager
def gateway(
    settings: WatchSettings,
    *,
    stages: Sequence[Stage] = (),
    policy: str | Policy = "round_robin",
    clock: Clock | None = None,
    kept: Kept | None = None,
    **more: Any,
) -> Iterator[Gateway]:
    """A gateway that is closed at the end; virtual time by default."""
    name = policy if isinstance(policy, str) else "round_robin"
    made = policy
    if isinstance(policy, str):
        made = make(policy, max_staleness=settings.gate.max_staleness_s)
    running = Gateway(
        settings,
        policy=made,
        leftover=leftover_of(name, settings.gate.leftover),
        stages=stages,
        tasks=[
            Task(t.name, t.model, t.measure, tuple(int(c) for c in t.classes), t.step)
            for t in settings.tasks
        ],
        labels={},
        outputs=Outputs([kept] if kept is not None else []),
        clock=clock or VirtualClock(),
        **more,
    )
    try:
        yield running
    finally:
        assert running.close()
