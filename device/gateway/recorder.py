"""What is kept of cameras: results and events as documents, clips of events, traces.

The loop's thread calls it and never waits: files and sinks belong to the writer's thread.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from triparty.common.files import make_private_folder
from triparty.device.events.kinds import kind_of
from triparty.device.gate.detectors import Detections
from triparty.device.gate.trace_files import TraceWriter
from triparty.device.gate.traces import Task
from triparty.device.gateway.answers import Answer, Change, confidence
from triparty.device.gateway.camera import Camera, told
from triparty.device.gateway.clips import CLIPS, Recording, prune, suffix_for, write_clip
from triparty.device.gateway.frames import StreamFrame
from triparty.device.gateway.questions import Question
from triparty.device.gateway.results import Sink
from triparty.device.gateway.settings import WatchSettings
from triparty.device.gateway.snapshots import SNAPSHOTS, SUFFIX, write_snapshot
from triparty.device.gateway.stages import Outcome, Seen
from triparty.device.gateway.workers import Report
from triparty.device.gateway.writer import Writer
from triparty.device.streams.packets import Packet

if TYPE_CHECKING:
    import av

PRUNE_S: Final = 60.0
MOST_SNAPSHOTS: Final = 8
"""Frames that may wait to be written as pictures: each holds its pixels."""
_UNSAFE = re.compile(r"[^\w.-]+")


class Recorder:
    """Writes what the settings want kept.

    Args:
        settings: of everything.
        labels: names of the classes of each model.
        sinks: take results and events.
        wall: seconds since 1970.
    """

    def __init__(
        self,
        settings: WatchSettings,
        labels: Mapping[str, Sequence[str]],
        sinks: Sequence[Sink],
        wall: Callable[[], float],
    ) -> None:
        """Starts the thread that writes."""
        self._results, self._folder = settings.results, settings.folder
        self._models = tuple(model.name for model in settings.models)
        self._labels, self._wall = labels, wall
        self._writer = Writer(sinks)
        self._pruned = -np.inf
        self._room = threading.BoundedSemaphore(MOST_SNAPSHOTS)

    @property
    def failures(self) -> int:
        """How much could not be written."""
        return self._writer.count.failures + self._writer.count.dropped

    def stop(self, timeout_s: float) -> bool:
        """Writes what waits and ends; returns whether that was done in time."""
        return self._writer.stop(timeout_s)

    # Documents.

    def state(self, camera: Camera, state: str) -> None:
        """A camera is in a state; told if it is another one than before."""
        if state == camera.told_state:
            return
        camera.told_state = state
        wall = round(self._wall(), 3)
        self._writer.put({"type": "state", "camera": camera.name, "wall": wall, "state": state})

    def result(self, camera: Camera, outcome: Outcome, answers: Mapping[str, Answer]) -> None:
        """What models saw in a frame or filters said for them, and what its tasks answer."""
        frame = outcome.frame
        self._writer.put(
            {
                **_document("result", frame),
                "selected": frame.selected,
                "redundant": outcome.redundant,
                "filtered": {
                    name: type(said).__name__ for name, said in outcome.filtered.items()
                },
                "answers": {name: told(value) for name, value in answers.items()},
                "seen": {
                    name: _told(seen, self._labels.get(name, ()))
                    for name, seen in outcome.seen.items()
                },
            }
        )
        self.truth(camera, outcome)

    def event(
        self, camera: Camera, question: Question, change: Change, outcome: Outcome
    ) -> None:
        """An answer changed for good, as a frame showed."""
        task, frame = question.task, outcome.frame
        kind = kind_of(task.measure, change.before, change.after)
        camera.events += 1
        wall = frame.wall - (frame.time - change.time)
        seen = outcome.seen.get(task.model)
        part = None if seen is None or kind == "leave" else question.part(seen)
        document = {
            **_document("event", frame),
            "time": round(change.time, 3),
            "wall": round(wall, 3),
            "task": question.of,
            "zone": question.zone,
            "kind": kind,
            "label": self._label(task, change),
            "before": told(change.before),
            "after": told(change.after),
            "measured": task.model not in outcome.filtered,
            "confidence": None if part is None else _rounded(confidence(task, part)),
        }
        name = f"{_safe(camera.name)}-{_stamp(wall)}-{_safe(question.name)}"
        if self._results.clips is not None:
            document["clip"] = self._begin_clip(camera, name, change)
        if self._results.snapshots is not None:
            document["snapshot"] = self._take_snapshot(f"{name}{SUFFIX}", frame)
        self._writer.put(document)

    def _label(self, task: Task, change: Change) -> str | None:
        """The name of the one class that a change is about, if it is about one."""
        classes = task.classes
        if task.measure == "labels":
            classes = tuple(set(change.before) ^ set(change.after))  # type: ignore[arg-type]
        if len(classes) != 1:
            return None
        return str(_name(int(classes[0]), self._labels.get(task.model, ())))

    # Snapshots.

    def _take_snapshot(self, name: str, frame: StreamFrame) -> str | None:
        """The name of the picture of an event; None where too many wait to be written."""
        if self._results.snapshots is None or not self._room.acquire(blocking=False):
            return None
        path = self._folder / self._results.snapshots / name
        pixels = self._results.snapshot_pixels
        if self._writer.put(partial(self._write_snapshot, path, frame.image, pixels)):
            return name
        self._room.release()
        return None

    def _write_snapshot(self, path: Path, image: av.VideoFrame, pixels: int) -> None:
        try:
            write_snapshot(path, image, pixels=pixels)
        finally:
            self._room.release()

    # Traces.

    def begin_trace(self, camera: Camera) -> None:
        """Begins the trace of a new connection, if traces are kept."""
        if self._results.traces is None:
            return
        traces = self._folder / self._results.traces
        make_private_folder(traces)
        path = traces_of(traces, camera.name) / f"{_stamp(self._wall())}-{camera.run}"
        # Results of the connection before may still come; those of earlier ones cannot.
        for run in [run for run in camera.traces if run < camera.run - 1]:
            self._writer.put(camera.traces.pop(run).close)
        trace = TraceWriter(path, camera.origin(), self._models, tuple(camera.tasks))
        camera.traces[camera.run] = trace

    def packets(self, camera: Camera, packets: Sequence[Packet]) -> None:
        """Packets of the present connection, for its trace."""
        if (trace := camera.traces.get(camera.run)) is not None:
            self._writer.put(partial(_add_all, trace, packets))

    def costs(self, camera: Camera, report: Report) -> None:
        """What decoding took, for the trace."""
        if (trace := camera.traces.get(report.job.run)) is not None:
            costs = [(spent.packet.number, spent.cpu_ms) for spent in report.spent]
            self._writer.put(partial(_cost_all, trace, costs))

    def truth(self, camera: Camera, outcome: Outcome) -> None:
        """What models saw in a frame, for the trace."""
        frame = outcome.frame
        if (trace := camera.traces.get(frame.run)) is None:
            return
        for place, model in enumerate(self._models):
            if (seen := outcome.seen.get(model)) is not None:
                self._writer.put(partial(_result, trace, frame.pts, place, seen))

    def end_traces(self, camera: Camera) -> None:
        """Nothing more comes of a camera."""
        for trace in camera.traces.values():
            self._writer.put(trace.close)
        camera.traces = {}

    # Clips.

    def gather(self, camera: Camera, packet: Packet) -> None:
        """The next packet, for the clip that is being gathered."""
        if camera.recording is not None and camera.recording.add(packet):
            self.finish_clip(camera)

    def finish_clip(self, camera: Camera) -> None:
        """Writes the clip that is being gathered."""
        recording, camera.recording = camera.recording, None
        if recording is not None:
            self._writer.put(
                partial(write_clip, recording.path, recording.opened, recording.packets)
            )

    def prune(self, now: float) -> None:
        """Deletes old clips and snapshots, now and then; `now` in seconds of any clock."""
        if now - self._pruned < PRUNE_S:
            return
        self._pruned, results = now, self._results
        oldest = self._wall() - results.keep_days * 86_400
        for folder, pattern, mib in (
            (results.clips, CLIPS, results.clips_mib),
            (results.snapshots, SNAPSHOTS, results.snapshots_mib),
        ):
            if folder is not None:
                path = self._folder / folder
                self._writer.put(partial(prune, path, pattern, mib << 20, oldest))

    def _begin_clip(self, camera: Camera, stem: str, change: Change) -> str | None:
        """The name of the clip that shows an event; one that is gathered already goes on."""
        until = change.time + camera.settings.after_s
        if camera.recording is not None:
            camera.recording.until = max(camera.recording.until, until)
            return camera.recording.path.name
        packets = camera.ring.since(change.time - camera.settings.before_s)
        if not packets or camera.opened is None or self._results.clips is None:
            return None
        name = f"{stem}{suffix_for(camera.opened.codec)}"
        path = self._folder / self._results.clips / name
        camera.recording = Recording(camera.opened, packets, until, camera.ring_bytes, path)
        return name


def traces_of(traces: Path, camera: str) -> Path:
    """The folder of a camera's traces in that of all traces."""
    return traces / _safe(camera)


def _document(kind: str, frame: StreamFrame) -> dict[str, object]:
    return {
        "type": kind,
        "camera": frame.stream,
        "time": round(frame.time, 3),
        "wall": round(frame.wall, 3),
    }


def _safe(name: str) -> str:
    """A name as part of a file name."""
    return _UNSAFE.sub("_", name).strip("._") or "unnamed"


def _stamp(wall: float) -> str:
    return datetime.fromtimestamp(wall, UTC).strftime("%Y%m%dT%H%M%S.%f")[:-3]


def _name(label: int, names: Sequence[str]) -> str | int:
    return names[label] if 0 <= label < len(names) else label


def _rounded(score: float | None) -> float | None:
    return None if score is None else round(score, 4)


def _told(seen: Seen, names: Sequence[str]) -> object:
    """What a model saw, as JSON has it."""
    if not isinstance(seen, Detections):
        return round(seen, 6)
    return [
        {
            "label": _name(int(seen.labels[n]), names),
            "score": round(float(seen.scores[n]), 4),
            "box": [round(float(edge), 4) for edge in seen.boxes[n]],
        }
        for n in range(len(seen.labels))
    ]


def _add_all(trace: TraceWriter, packets: Sequence[Packet]) -> None:
    for packet in packets:
        trace.add(packet)


def _cost_all(trace: TraceWriter, costs: Sequence[tuple[int, float]]) -> None:
    for number, cost_ms in costs:
        trace.cost(number, cost_ms)


def _result(trace: TraceWriter, pts: int, model: int, seen: Seen) -> None:
    if isinstance(seen, Detections):
        trace.result(pts, model, boxes=seen.boxes, labels=seen.labels, scores=seen.scores)
    else:
        trace.result(pts, model, value=seen)
