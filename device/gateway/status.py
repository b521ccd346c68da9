"""How everything stands at a moment, and how that is told on a line and in a table."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from triparty.device.events.outlet import OutletStatus
from triparty.device.events.store import StoreStatus
from triparty.device.gate.recall import Estimate
from triparty.device.gateway.audit import Audited
from triparty.device.gateway.stages import StageCount
from triparty.device.streams.cost import Kind, Line
from triparty.device.streams.status import State, Status

NAME_WIDTH = 16
NOTE_WIDTH = 44
_FILTER_COUNTS = (
    "passed",
    "filtered",
    "reused",
    "audited",
    "wrong",
    "observed",
    "failed",
    "samples",
)


@dataclass(frozen=True)
class CameraStatus:
    """How a camera stands.

    Attributes:
        stream: of its stream.
        arrived: packets that rounds have seen; of a file others were read ahead.
        selected: packets that the gate chose.
        decoded: packets that were decoded, chosen or needed.
        failures: times that decoding failed.
        cpu_ms: that decoding took.
        expected_ms: CPU ms that decoding all of it is expected to have taken.
        looks: frames that models looked at.
        observed: frames decoded only as dependencies that a stage looked at.
        news: looks at which an answer was new.
        events: so far.
        held_packets: compressed packets that are held for it.
        held_bytes: of them.
        look_age_s: seconds since the last look, or since it was added.
        overdue: the budget left it waiting for longer than the configuration allows.
        whole: why it is decoded whole; None if it is gated.
        unreachable: packets that could not have been decoded when they arrived.
        answers: the last ones, by task.
    """

    stream: Status
    arrived: int = 0
    selected: int = 0
    decoded: int = 0
    failures: int = 0
    cpu_ms: float = 0.0
    expected_ms: float = 0.0
    looks: int = 0
    observed: int = 0
    news: int = 0
    events: int = 0
    held_packets: int = 0
    held_bytes: int = 0
    look_age_s: float = 0.0
    overdue: bool = False
    whole: str | None = None
    unreachable: int = 0
    answers: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Of the camera."""
        return self.stream.name


@dataclass(frozen=True)
class FilterStatus:
    """How a filter in front of a model stands.

    Attributes:
        name: of the filter.
        model: that it spares.
        version: that its developer gave it; None for one that was made here.
        passed: frames that the model looked at.
        filtered: frames that were answered without it.
        reused: of these, by an earlier result.
        audited: frames that chance sent to the model.
        wrong: audits that the filter would have answered otherwise.
        observed: frames decoded for others alone of which it knew the answer.
        failed: frames that its network could not take.
        cpu_ms: that the filter took.
        samples: kept to train another.
        accuracy: of the last audits; None before the first.
        accuracy_low: its lower bound, 95 %.
        accuracy_high: its upper bound, 95 %.
        target_accuracy: that it promised.
        is_drifting: whether the accuracy is below that.
    """

    name: str
    model: str
    version: int | None
    passed: int
    filtered: int
    reused: int
    audited: int
    wrong: int
    observed: int
    failed: int
    cpu_ms: float
    samples: int
    accuracy: float | None
    accuracy_low: float
    accuracy_high: float
    target_accuracy: float
    is_drifting: bool

    @property
    def filter_rate(self) -> float:
        """Share of frames answered without the model; audits count as not filtered."""
        frames = self.passed + self.filtered
        return self.filtered / frames if frames else 0.0

    @property
    def ms_per_frame(self) -> float:
        """CPU ms that the filter takes for a frame."""
        frames = self.passed + self.filtered
        return self.cpu_ms / frames if frames else 0.0


@dataclass(frozen=True)
class PlanStatus:
    """How a plan stands.

    Attributes:
        active: models that run.
        predicted: models that links predict.
        expected_accuracy: of the plan, over all of its models.
        measured: frames that a model looked at, by name.
        predictions: frames of which a model's output was predicted, by name.
        confidence: mean of these predictions, by name.
        failures: times that a model failed, by name.
        failing: why a model cannot be run now, by name.
        unanswered: frames of which nothing could be predicted, by model.
        profiles: times that all models were run to choose anew.
        switches: times that others were chosen.
        recorded: frames of which what all models said was written to records.
        costs: memory in MiB and latency in ms of models that ran, as measured, by name.
        sources: models that the last prediction was made from, by name.
        planned: memory in MiB and latency in ms that the choice is expected to take, links
            counted; None of what it was not chosen by.
        budget: of both, that it was chosen under; None of what is not short.
        refused: why models could not be chosen anew, or be recorded, the last time; None
            otherwise.
    """

    active: tuple[str, ...]
    predicted: tuple[str, ...]
    expected_accuracy: float
    measured: Mapping[str, int] = field(default_factory=dict)
    predictions: Mapping[str, int] = field(default_factory=dict)
    confidence: Mapping[str, float] = field(default_factory=dict)
    failures: Mapping[str, int] = field(default_factory=dict)
    failing: Mapping[str, str] = field(default_factory=dict)
    unanswered: Mapping[str, int] = field(default_factory=dict)
    profiles: int = 0
    switches: int = 0
    recorded: int = 0
    costs: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    sources: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    planned: tuple[float | None, float | None] = (None, None)
    budget: tuple[float | None, float | None] = (None, None)
    refused: str | None = None


@dataclass(frozen=True)
class GatewayStatus:
    """How the gateway stands.

    Attributes:
        seconds: since it began.
        cameras: in the order of the configuration.
        rounds: so far.
        late_rounds: rounds that began late by more than one.
        charged_ms: CPU ms charged to the budget.
        measured_ms: CPU ms that decoding really took.
        granted_ms: budget of all rounds, in CPU ms.
        lapsed_ms: of that, what nobody used within a second.
        budget_cores: the budget, as a share of one core.
        frames_dropped: that models came too late for.
        write_failures: results that could not be written.
        events_dropped: events for which there was no room before anything could take them.
        stages: by name, as they were then.
        audits: what audits say of each task.
        audited_groups: that they rest on.
        audit_ms: CPU ms that audits took, of `measured_ms`.
        costs: what decoding was learnt to cost.
        reloads: how often a new configuration was taken.
        refused: why the last one was not.
        filters: in the order of the configuration.
        plan: of the models; None without one.
        expected_ms: CPU ms that decoding all packets is expected to have taken.
        store: of results and events; None without one.
        outlets: integrations.
    """

    seconds: float
    cameras: Sequence[CameraStatus]
    rounds: int
    late_rounds: int
    charged_ms: float
    measured_ms: float
    granted_ms: float
    lapsed_ms: float
    budget_cores: float
    frames_dropped: int
    write_failures: int
    stages: Mapping[str, StageCount]
    audits: Mapping[str, Audited] = field(default_factory=dict)
    audited_groups: int = 0
    audit_ms: float = 0.0
    costs: Mapping[Kind, Line] = field(default_factory=dict)
    reloads: int = 0
    refused: str | None = None
    filters: Sequence[FilterStatus] = ()
    plan: PlanStatus | None = None
    expected_ms: float = 0.0
    store: StoreStatus | None = None
    outlets: Sequence[OutletStatus] = ()
    events_dropped: int = 0

    @property
    def used_cores(self) -> float:
        """Cores that decoding took on average."""
        return self.measured_ms / 1e3 / self.seconds if self.seconds > 0 else 0.0


def line(status: GatewayStatus) -> str:
    """All of it in one line."""
    states = Counter(camera.stream.state for camera in status.cameras)
    told = [f"{count} {state}" for state, count in sorted(states.items())]
    packets = sum(camera.arrived for camera in status.cameras)
    decoded = sum(camera.decoded for camera in status.cameras)
    looks = sum(camera.looks for camera in status.cameras)
    events = sum(camera.events for camera in status.cameras)
    share = f"{decoded / packets:.0%}" if packets else "0 %"
    parts = [
        ", ".join(told),
        f"decoded {decoded} of {packets} packets ({share})",
        f"{status.used_cores:.2f} of {status.budget_cores:.2f} cores",
        f"{looks} looks, {events} events",
    ]
    if overdue := [camera.name for camera in status.cameras if camera.overdue]:
        parts.append(f"over budget, waiting too long: {', '.join(overdue[:5])}")
    if whole := [camera.name for camera in status.cameras if camera.whole]:
        parts.append(f"decoded whole: {', '.join(whole[:5])}")
    if shares := [_share(task, of) for task, of in status.audits.items() if of.accuracy.groups]:
        parts.append(f"right by audit: {', '.join(shares)}")
    parts += [_filter_line(one) for one in status.filters]
    if status.plan is not None:
        parts.append(_plan_line(status.plan))
    if status.frames_dropped:
        parts.append(f"{status.frames_dropped} frames too late for models")
    if status.refused is not None:
        parts.append(f"new configuration refused: {status.refused}")
    if status.store is not None and status.store.last_error is not None:
        waiting = f"{status.store.waiting} events wait for the database"
        parts.append(f"{waiting}: {status.store.last_error}")
    parts += [
        f"{one.kind} {one.name}: {one.last_error or 'not connected'}, {one.waiting} waiting"
        for one in status.outlets
        if not one.well
    ]
    if status.write_failures:
        parts.append(f"{status.write_failures} writes failed")
    return " | ".join(parts)


def table(status: GatewayStatus) -> list[str]:
    """A line a camera, under a head."""
    head = f"{'camera':{NAME_WIDTH}} {'state':10} {'packets':>9} {'decoded':>8} {'looks':>6}"
    lines = [f"{head} {'events':>6}  note"]
    for camera in status.cameras:
        stream = camera.stream
        lines.append(
            f"{camera.name[:NAME_WIDTH]:{NAME_WIDTH}} {stream.state:10} {camera.arrived:>9} "
            f"{camera.decoded:>8} {camera.looks:>6} {camera.events:>6}  {_note(camera)}"
        )
    return lines


def document(status: GatewayStatus) -> dict[str, Any]:
    """All of it for JSON."""
    return {
        "type": "summary",
        "seconds": round(status.seconds, 3),
        "rounds": status.rounds,
        "late_rounds": status.late_rounds,
        "decode_cpu_ms": round(status.measured_ms, 3),
        "charged_cpu_ms": round(status.charged_ms, 3),
        "granted_cpu_ms": round(status.granted_ms, 3),
        "lapsed_cpu_ms": round(status.lapsed_ms, 3),
        "budget_cores": status.budget_cores,
        "frames_dropped": status.frames_dropped,
        "write_failures": status.write_failures,
        "events_dropped": status.events_dropped,
        "reloads": status.reloads,
        "reload_refused": status.refused,
        "stages": {
            name: {
                "frames": count.frames,
                "errors": count.errors,
                "cpu_ms": round(count.cpu_ms, 3),
                "last_error": count.last_error,
            }
            for name, count in status.stages.items()
        },
        "audit": {
            "groups": status.audited_groups,
            "cpu_ms": round(status.audit_ms, 3),
            "tasks": {
                name: {"accuracy": _estimate(of.accuracy), "recall": _estimate(of.recall)}
                for name, of in status.audits.items()
            },
        },
        "filters": [_filter(one) for one in status.filters],
        "plan": None if status.plan is None else _plan(status.plan),
        "store": status.store and asdict(status.store),
        "outlets": [asdict(one) for one in status.outlets],
        "decode_costs": [
            {
                **kind._asdict(),
                "cpu_ms": round(line.ms, 4),
                "cpu_ms_per_kb": round(line.ms_per_kilobyte, 4),
                "packets": line.packets,
            }
            for kind, line in status.costs.items()
        ],
        "cameras": [_camera(camera) for camera in status.cameras],
    }


def _filter(of: FilterStatus) -> dict[str, Any]:
    return {
        **{name: getattr(of, name) for name in ("name", "model", "version", *_FILTER_COUNTS)},
        "filter_rate": round(of.filter_rate, 4),
        "cpu_ms": round(of.cpu_ms, 3),
        "ms_per_frame": round(of.ms_per_frame, 4),
        "accuracy": None if of.accuracy is None else round(of.accuracy, 4),
        "accuracy_low": round(of.accuracy_low, 4),
        "accuracy_high": round(of.accuracy_high, 4),
        "target_accuracy": of.target_accuracy,
        "drifting": of.is_drifting,
    }


def _filter_line(of: FilterStatus) -> str:
    told = f"{of.name} filtered {of.filter_rate:.0%}"
    if of.is_drifting:
        told += f", DRIFTING: right in {of.accuracy_low:.0%} to {of.accuracy_high:.0%}"
    return told


def _plan(of: PlanStatus) -> dict[str, Any]:
    return {
        "active": list(of.active),
        "predicted": list(of.predicted),
        "expected_accuracy": round(of.expected_accuracy, 4),
        "measured": dict(of.measured),
        "predictions": dict(of.predictions),
        "confidence": {name: round(value, 4) for name, value in of.confidence.items()},
        "failures": dict(of.failures),
        "failing": dict(of.failing),
        "unanswered": dict(of.unanswered),
        "profiles": of.profiles,
        "switches": of.switches,
        "recorded": of.recorded,
        "costs": {
            name: {"memory_mib": round(memory, 3), "latency_ms": round(latency, 4)}
            for name, (memory, latency) in of.costs.items()
        },
        "sources": {name: list(sources) for name, sources in of.sources.items()},
        "planned": dict(zip(("memory_mib", "latency_ms"), of.planned, strict=True)),
        "budget": dict(zip(("memory_mib", "latency_ms"), of.budget, strict=True)),
        "refused": of.refused,
    }


def _plan_line(of: PlanStatus) -> str:
    told = f"runs {', '.join(of.active) or 'no model'}"
    if of.predicted:
        told += f", predicts {', '.join(of.predicted)}"
    if of.failing:
        told += f", FAILING: {', '.join(of.failing)}"
    if of.recorded:
        told += f", recorded {of.recorded} frames"
    return told


def _estimate(estimate: Estimate) -> dict[str, Any]:
    known = not math.isnan(estimate.share)
    return {
        "share": round(estimate.share, 4) if known else None,
        "low": round(estimate.low, 4),
        "high": round(estimate.high, 4),
        "groups": estimate.groups,
    }


def _share(task: str, of: Audited) -> str:
    estimate = of.accuracy
    return f"{task} {estimate.share:.0%} ({estimate.low:.0%} to {estimate.high:.0%})"


def _camera(camera: CameraStatus) -> dict[str, Any]:
    stream = camera.stream
    return {
        "camera": camera.name,
        "address": stream.address,
        "state": stream.state.value,
        "codec": stream.codec,
        "width": stream.width,
        "height": stream.height,
        "packets": camera.arrived,
        "attempts": stream.attempts,
        "connections": stream.connections,
        "corrupt": stream.corrupt,
        "gaps": stream.gaps,
        "last_error": stream.last_error,
        "decoded_whole": camera.whole,
        "selected": camera.selected,
        "decoded": camera.decoded,
        "decode_failures": camera.failures,
        "decode_cpu_ms": round(camera.cpu_ms, 3),
        "unreachable": camera.unreachable,
        "held_packets": camera.held_packets,
        "held_bytes": camera.held_bytes,
        "looks": camera.looks,
        "observed": camera.observed,
        "news": camera.news,
        "events": camera.events,
        "overdue": camera.overdue,
        "answers": dict(camera.answers),
    }


def _note(camera: CameraStatus) -> str:
    """The one thing that an operator should know of it."""
    stream = camera.stream
    if stream.state is not State.LIVE and stream.last_error:
        note = stream.last_error
    elif camera.overdue:
        note = f"not looked at for {camera.look_age_s:.0f} s: budget too small"
    elif camera.whole:
        note = f"decoded whole: {camera.whole}"
    else:
        answers = [f"{task}={value}" for task, value in camera.answers.items()]
        note = " ".join(answers)
    return note if len(note) <= NOTE_WIDTH else f"{note[: NOTE_WIDTH - 3]}..."
