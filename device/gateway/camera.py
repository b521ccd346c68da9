"""What the gateway keeps of one camera; touched by the loop's thread alone."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from triparty.device.gate.trace_files import TraceWriter
from triparty.device.gate.traces import Origin, Task
from triparty.device.gateway.answers import Answer, Debounce, Held, nothing
from triparty.device.gateway.audit import Group
from triparty.device.gateway.clips import Recording
from triparty.device.gateway.questions import Question
from triparty.device.gateway.ring import Ring
from triparty.device.gateway.settings import CameraSettings, TaskSettings
from triparty.device.gateway.status import CameraStatus
from triparty.device.gateway.workers import Report
from triparty.device.streams.closure import Closures
from triparty.device.streams.drought import Drought
from triparty.device.streams.opening import Opened
from triparty.device.streams.packets import Packet
from triparty.device.streams.reachability import Bound
from triparty.device.streams.sources import Source

log = logging.getLogger(__name__)

CLOSURE_BYTES = 16 << 20
CLOSURE_PACKETS = 1500


@dataclass(eq=False)
class Camera:
    """A camera that is being watched.

    Attributes:
        key: of it in the workers; never used again.
        row: of it in the policy.
        settings: of it.
        source: where its packets come from.
        worker: place of the worker that decodes it.
        asked: whether each task of the gateway is asked of it.
        tasks: those that are.
        questions: these tasks, of the whole picture and of zones.
        added: when, on the loop's clock.
        ring_s: how long packets are kept for clips.
        opened: the parameters of the present connection.
        run: counts connections.
        closures: of the present connection.
        ring: the last packets.
        whole: why it is decoded whole.
        drought: watches for entries of the present connection.
        audits: groups that are audited, by their number; the last one may still grow.
        auditing: the number of the one that grows.
        parched: whether it is decoded whole only until an entry comes.
        fresh: packets that arrived in this round.
        own_ms: what decoding each of them alone is expected to take.
        jobs: that are being done.
        held: the last answers.
        debounces: by question that makes events.
        recording: the clip that is being gathered.
        traces: of the last connections, by run, if traces are recorded.
        looked: when a frame was last handed to the models, on the loop's clock.
        look_time: of that frame, on the stream's clock.
        told_state: state that was told last.
        heard: time of the last chosen frame that was looked at, on the stream's clock.
    """

    key: int
    row: int
    settings: CameraSettings
    source: Source
    worker: int
    asked: Sequence[bool]
    tasks: Sequence[Task]
    questions: Sequence[Question]
    added: float
    ring_s: float
    debounces: dict[str, Debounce]
    opened: Opened | None = None
    run: int = -1
    closures: Closures = field(default_factory=Closures)
    ring: Ring = field(init=False)
    whole: str | None = None
    drought: Drought = field(init=False)
    parched: bool = False
    audits: dict[int, Group] = field(default_factory=dict)
    auditing: int | None = None
    fresh: list[Packet] = field(default_factory=list)
    own_ms: list[float] = field(default_factory=list)
    jobs: int = 0
    held: Held = field(default_factory=lambda: Held({}))
    recording: Recording | None = None
    traces: dict[int, TraceWriter] = field(default_factory=dict)
    looked: float | None = None
    look_time: float = -np.inf
    heard: float = -np.inf
    told_state: str | None = None
    ended: bool = False
    arrived: int = 0
    selected: int = 0
    decoded: int = 0
    failures: int = 0
    unreachable: int = 0
    cpu_ms: float = 0.0
    expected_ms: float = 0.0
    looks: int = 0
    observed: int = 0
    news: int = 0
    events: int = 0

    def __post_init__(self) -> None:
        """Makes the ring."""
        self.ring = Ring(self.ring_s, self.ring_bytes)
        self.drought = Drought(self.settings.entry_wait_s)

    @property
    def name(self) -> str:
        """Of the camera."""
        return self.settings.name

    @property
    def ring_bytes(self) -> int:
        """Most bytes of compressed packets for clips."""
        return self.settings.hold_mib << 20

    def open(self, opened: Opened) -> None:
        """Begins with the packets of a new connection."""
        self.opened, self.run = opened, self.run + 1
        self._begin_gating()
        self.drought = Drought(self.settings.entry_wait_s)
        self.ring.clear()
        if self.settings.whole:
            self.decode_whole("the configuration says so")
        elif opened.ungateable is not None:
            self.decode_whole(opened.ungateable)

    def expect(self, packet: Packet) -> bool:
        """Begins or ends decoding whole for want of entries, before a packet is taken in.

        Returns:
            Whether it begins here: what is held must be decoded before the packet is added.
        """
        reason = self.drought.add(packet, self.closures)
        if self.parched and packet.picture.entry:
            self._begin_gating()
        if reason is None or self.whole is not None:
            return False
        self.decode_whole(reason)
        self.parched = True
        return True

    def add(self, packet: Packet, cost_ms: float) -> None:
        """Takes in the next packet.

        Args:
            packet: in decode order.
            cost_ms: that decoding it alone is expected to take.
        """
        self.closures.add(packet, cost_ms)
        self.ring.add(packet)

    def decode_whole(self, reason: str) -> None:
        """From here on every packet is decoded."""
        self.whole, self.parched = reason, False
        self.closures.decode_whole()

    def _begin_gating(self) -> None:
        self.unreachable += self.closures.counters.unreachable
        bound = Bound(packets=CLOSURE_PACKETS, size=min(CLOSURE_BYTES, self.ring_bytes))
        self.closures = Closures(bound)
        self.whole, self.parched = None, False

    def fail(self, report: Report) -> None:
        """Decoding failed, as a report says."""
        self.failures += 1
        if self.failures in (1, 10) or self.failures % 1000 == 0:
            log.warning(
                "camera %s: decoding failed (%d times): %s",
                self.name,
                self.failures,
                self.source.address.scrub(report.error or ""),
            )
        if report.job.run != self.run:
            return
        if report.failed is None:
            self.closures.gap()
        else:
            self.closures.failed(report.failed)

    def gap(self) -> None:
        """Pictures are missing here."""
        self.closures.gap()
        self.ring.clear()

    def status(self, now: float, *, overdue: bool) -> CameraStatus:
        """How it stands."""
        unreachable = self.unreachable + self.closures.counters.unreachable
        return CameraStatus(
            stream=self.source.status,
            arrived=self.arrived,
            selected=self.selected,
            decoded=self.decoded,
            failures=self.failures,
            cpu_ms=self.cpu_ms,
            expected_ms=self.expected_ms,
            looks=self.looks,
            observed=self.observed,
            news=self.news,
            events=self.events,
            held_packets=self.closures.held_packets + len(self.ring),
            held_bytes=self.closures.held_bytes + self.ring.held_bytes,
            look_age_s=now - (self.added if self.looked is None else self.looked),
            overdue=overdue,
            whole=self.whole,
            unreachable=unreachable,
            answers=dict(self.held.answers),
        )

    def origin(self) -> Origin:
        """Of its trace."""
        opened = self.opened
        if opened is None:
            raise RuntimeError("a trace begins with a connection")
        return Origin(
            camera=self.name,
            codec=opened.codec,
            container=self.source.address.scheme,
            width=opened.width,
            height=opened.height,
            fps=opened.rate,
            ungateable=self.whole,
        )


def debounces(
    asked: Sequence[Question], settings: Mapping[str, TaskSettings]
) -> dict[str, Debounce]:
    """Of the questions whose changes are events; a camera begins with nothing in view."""
    return {
        question.name: Debounce(
            question.task,
            hold_s=settings[question.of].hold_s,
            looks=settings[question.of].looks,
            answer=nothing(question.task),
        )
        for question in asked
        if settings[question.of].events and question.task.measure != "boxes"
    }


def told(answer: Answer) -> object:
    """An answer as JSON has it."""
    return list(answer) if isinstance(answer, tuple) else answer
