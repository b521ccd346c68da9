"""A trace: what one stream's packets said, what decoding them cost, and what models saw.

A trace is what a gate is trained on and what a policy is replayed over. It holds no pixels, but
packet sizes alone tell when something happened (thesis 2.5.4): treat it as confidential. Its
file form is in `trace_files.py` and docs/traces.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from triparty.common.errors import TraceError
from triparty.device.streams.packets import Entry, Packet

Measure = Literal["count", "presence", "labels", "boxes", "anomaly", "value"]
MEASURES: tuple[str, ...] = get_args(Measure)
UNKNOWN_MASK = -1
MAX_NAME = 200


@dataclass(frozen=True)
class Task:
    """A question that a model's results answer, and what makes an answer a new one.

    Attributes:
        name: what it is called in figures.
        model: whose results answer it.
        measure: thesis 2.4.1: `count` (how many objects), `presence` (any object at all),
            `labels` (which classes), `boxes` (where they are, by IoU), `anomaly` (whether
            there is one: the answer itself is what is looked for, not its change), `value`
            (the model's number, in steps of `step`).
        classes: classes that are looked at; empty means all.
        step: how much a number changes before it is a new answer; for `value` alone.
    """

    name: str
    model: str
    measure: Measure
    classes: tuple[int, ...] = ()
    step: float = 1.0

    def __post_init__(self) -> None:
        """Refuses what cannot be a task.

        Raises:
            TraceError: an unknown measure, an overlong name, a step that is not positive.
        """
        if self.measure not in MEASURES:
            raise TraceError(
                f"task '{self.name[:MAX_NAME]}' has an unknown measure "
                f"'{str(self.measure)[:MAX_NAME]}': expected one of {', '.join(MEASURES)}"
            )
        if not 0 < len(self.name) <= MAX_NAME or not 0 < len(self.model) <= MAX_NAME:
            raise TraceError(f"names of tasks and models have 1 to {MAX_NAME} characters")
        if not 0 < self.step < float("inf"):
            raise TraceError(f"task '{self.name}' has step {self.step}: expected above 0")


@dataclass(frozen=True)
class Origin:
    """Where a trace comes from; names and figures, never a URL.

    Attributes:
        camera: a name that people gave.
        codec: as FFmpeg calls it (`h264`, `hevc`, ...).
        container: as FFmpeg calls it (`mov,mp4,...`, `rtsp`, ...).
        width: pixels.
        height: pixels.
        fps: frames a second, nominal.
        note: how it was made, if not by recording a camera (re-encoded, generated).
        ungateable: why the stream must be decoded whole, or None.
    """

    camera: str
    codec: str
    container: str
    width: int
    height: int
    fps: float
    note: str = ""
    ungateable: str | None = None

    def __post_init__(self) -> None:
        """Refuses what cannot be a video.

        Raises:
            TraceError: a size or rate that is not positive.
        """
        if not (0 < self.width < 1 << 16 and 0 < self.height < 1 << 16):
            raise TraceError(f"a trace of {self.width}x{self.height} pixels: not a video")
        if not 0 < self.fps <= 1000:
            raise TraceError(f"a trace of {self.fps} frames a second: expected 0 to 1000")


@dataclass(frozen=True, eq=False)
class PacketColumns:
    """The packets of a trace in decode order, n of them; see `packets.Picture` for the words.

    Attributes:
        pts: (n,) int64 presentation stamps, no two alike.
        time: (n,) float64 presentation time in seconds.
        size: (n,) int64 bytes.
        type: (n,) int8 `PictureType`.
        reference: (n,) bool.
        entry: (n,) int8 `Entry`.
        leading: (n,) bool.
        shown: (n,) bool; whether the decoder outputs a frame for the packet.
        temporal_id: (n,) int8.
        slice_qp: (n,) float32, NaN where unknown.
        reads: (n,) int64 mask of reference slots, -1 where the headers do not say.
        writes: (n,) int64 mask of reference slots, -1 where the headers do not say.
        cost_ms: (n,) float32 measured CPU ms of decoding the packet, NaN where unknown.
    """

    pts: NDArray[np.int64]
    time: NDArray[np.float64]
    size: NDArray[np.int64]
    type: NDArray[np.int8]
    reference: NDArray[np.bool_]
    entry: NDArray[np.int8]
    leading: NDArray[np.bool_]
    shown: NDArray[np.bool_]
    temporal_id: NDArray[np.int8]
    slice_qp: NDArray[np.float32]
    reads: NDArray[np.int64]
    writes: NDArray[np.int64]
    cost_ms: NDArray[np.float32]

    def __len__(self) -> int:
        """How many packets."""
        return len(self.pts)

    @classmethod
    def of(
        cls, packets: Sequence[Packet], costs: Sequence[float] | None = None
    ) -> PacketColumns:
        """The columns of packets.

        Args:
            packets: in decode order.
            costs: measured CPU ms of each, NaN where unknown; all unknown by default.
        """
        pictures = [packet.picture for packet in packets]
        unknown = [float("nan")] * len(packets)
        qp = [unknown[0] if p.slice_qp is None else float(p.slice_qp) for p in pictures]
        return cls(
            pts=np.array([p.pts for p in packets], dtype=np.int64),
            time=np.array([p.time for p in packets], dtype=np.float64),
            size=np.array([p.size for p in packets], dtype=np.int64),
            type=np.array([p.type for p in pictures], dtype=np.int8),
            reference=np.array([p.reference for p in pictures], dtype=np.bool_),
            entry=np.array([p.entry for p in pictures], dtype=np.int8),
            leading=np.array([p.leading for p in pictures], dtype=np.bool_),
            shown=np.array([p.shown for p in pictures], dtype=np.bool_),
            temporal_id=np.array([p.temporal_id for p in pictures], dtype=np.int8),
            slice_qp=np.array(qp, dtype=np.float32),
            reads=_masks([p.reads for p in pictures]),
            writes=_masks([p.writes for p in pictures]),
            cost_ms=np.array(unknown if costs is None else costs, dtype=np.float32),
        )


@dataclass(frozen=True, eq=False)
class Results:
    """What models saw: r results, of one model on one frame each, with b boxes in all.

    Attributes:
        pts: (r,) int64 the frame.
        model: (r,) int16 place in `Trace.models`.
        value: (r,) float32 a number that the model gave (a count, a level), NaN if none.
        first: (r + 1,) int64 a result's boxes are `first[i]` to `first[i + 1]`.
        box: (b, 4) float32 left, top, right, bottom in shares of the frame; NaN where a label
            has no place.
        label: (b,) int32 class.
        score: (b,) float32 confidence.
    """

    pts: NDArray[np.int64]
    model: NDArray[np.int16]
    value: NDArray[np.float32]
    first: NDArray[np.int64]
    box: NDArray[np.float32]
    label: NDArray[np.int32]
    score: NDArray[np.float32]

    def __len__(self) -> int:
        """How many results."""
        return len(self.pts)

    @classmethod
    def none(cls) -> Results:
        """No results."""
        return ResultsBuilder().build()

    def chosen(self, rows: NDArray[np.intp]) -> Results:
        """Some of the results, by their places."""
        counts = np.diff(self.first)[rows]
        ends = _starts(counts)
        boxes = np.repeat(self.first[rows] - ends[:-1], counts) + np.arange(ends[-1])
        return Results(
            pts=self.pts[rows],
            model=self.model[rows],
            value=self.value[rows],
            first=ends,
            box=self.box[boxes],
            label=self.label[boxes],
            score=self.score[boxes],
        )


@dataclass
class ResultsBuilder:
    """Gathers results one by one."""

    _rows: list[tuple[int, int, float, int]] = field(default_factory=list)
    _boxes: list[NDArray[np.float32]] = field(default_factory=list)
    _labels: list[NDArray[np.int32]] = field(default_factory=list)
    _scores: list[NDArray[np.float32]] = field(default_factory=list)

    def __len__(self) -> int:
        """How many results so far."""
        return len(self._rows)

    def add(
        self,
        pts: int,
        model: int,
        *,
        boxes: NDArray[np.floating[Any]] | None = None,
        labels: NDArray[np.integer[Any]] | None = None,
        scores: NDArray[np.floating[Any]] | None = None,
        value: float = float("nan"),
    ) -> None:
        """Adds what one model saw in one frame.

        Args:
            pts: the frame.
            model: place of the model in `Trace.models`.
            boxes: (k, 4) left, top, right, bottom in shares of the frame.
            labels: (k,) class of each; 0 by default.
            scores: (k,) confidence of each; 1 by default.
            value: a number that the model gave.
        """
        count = len(labels) if labels is not None else len(boxes) if boxes is not None else 0
        where = np.full((count, 4), np.nan) if boxes is None else boxes
        self._rows.append((pts, model, value, count))
        self._boxes.append(np.asarray(where, dtype=np.float32).reshape(count, 4))
        self._labels.append(
            np.zeros(count, np.int32) if labels is None else np.asarray(labels, np.int32)
        )
        self._scores.append(
            np.ones(count, np.float32) if scores is None else np.asarray(scores, np.float32)
        )

    def build(self) -> Results:
        """The results so far."""
        counts = [row[3] for row in self._rows]
        return Results(
            pts=np.array([row[0] for row in self._rows], dtype=np.int64),
            model=np.array([row[1] for row in self._rows], dtype=np.int16),
            value=np.array([row[2] for row in self._rows], dtype=np.float32),
            first=_starts(counts),
            box=np.concatenate([np.empty((0, 4), np.float32), *self._boxes]),
            label=np.concatenate([np.empty(0, np.int32), *self._labels]),
            score=np.concatenate([np.empty(0, np.float32), *self._scores]),
        )


@dataclass(frozen=True, eq=False)
class Trace:
    """One stream, recorded; checks itself.

    Attributes:
        origin: where it comes from.
        packets: in decode order.
        models: names of the models whose results are held.
        tasks: what the results answer.
        results: what the models saw, in any order.
    """

    origin: Origin
    packets: PacketColumns
    models: tuple[str, ...] = ()
    tasks: tuple[Task, ...] = ()
    results: Results = field(default_factory=Results.none)

    def __post_init__(self) -> None:
        """Checks that the parts fit each other.

        Raises:
            TraceError: columns of different lengths, a value out of its range, a result
                without its packet, a task without its model.
        """
        _check_packets(self.packets)
        _check_results(self.results, len(self.models))
        if not np.isin(self.results.pts, self.packets.pts).all():
            raise TraceError("a result of a trace belongs to none of its packets")
        for task in self.tasks:
            if task.model not in self.models:
                raise TraceError(f"task '{task.name}' asks model '{task.model}': not in trace")
        if len({task.name for task in self.tasks}) < len(self.tasks):
            raise TraceError("two tasks of a trace have one name")

    @property
    def duration(self) -> float:
        """Seconds from the first frame to the end of the last, at least one frame's time."""
        times = self.packets.time
        if len(times) == 0:
            return 0.0
        return float(times.max() - times.min()) + 1.0 / self.origin.fps

    def from_first_entry(self) -> Trace:
        """The trace without what precedes its first packet at which decoding may start.

        Leading pictures of a trace that begins at an open entry stay: they count as packets
        that arrived, and nobody can decode them.

        Raises:
            TraceError: no packet is an entry.
        """
        entries = np.flatnonzero(self.packets.entry != Entry.NONE)
        if len(entries) == 0:
            raise TraceError(
                f"trace '{self.origin.camera}' holds no packet at which decoding may start"
            )
        return self.part(int(entries[0]), len(self.packets))

    def part(self, start: int, stop: int) -> Trace:
        """The packets from `start` to before `stop`, with their results."""
        columns = {
            f.name: getattr(self.packets, f.name)[start:stop] for f in fields(self.packets)
        }
        packets = PacketColumns(**columns)
        kept = np.flatnonzero(np.isin(self.results.pts, packets.pts))
        return replace(self, packets=packets, results=self.results.chosen(kept))


def join_packets(parts: Sequence[PacketColumns]) -> PacketColumns:
    """The packets of parts that follow each other, at least one."""
    return PacketColumns(
        **{
            column.name: np.concatenate([getattr(part, column.name) for part in parts])
            for column in fields(PacketColumns)
        }
    )


def join_results(parts: Sequence[Results]) -> Results:
    """The results of parts, at least one, in order."""
    columns = {
        column.name: np.concatenate([getattr(part, column.name) for part in parts])
        for column in fields(Results)
        if column.name != "first"
    }
    counts = np.concatenate([np.diff(part.first) for part in parts])
    return Results(first=_starts(counts), **columns)


def _starts(counts: Sequence[int] | NDArray[np.int64]) -> NDArray[np.int64]:
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)


def _masks(values: Sequence[int | None]) -> NDArray[np.int64]:
    return np.array([UNKNOWN_MASK if v is None else v for v in values], dtype=np.int64)


def _check_packets(packets: PacketColumns) -> None:
    count = len(packets.pts)
    for column in fields(packets):
        if getattr(packets, column.name).shape != (count,):
            raise TraceError(f"column '{column.name}' of a trace is not as long as 'pts'")
    _refuse(len(np.unique(packets.pts)) < count, "two packets have one presentation stamp")
    _refuse(not np.isfinite(packets.time).all(), "a presentation time is not a number")
    _refuse(bool((packets.size <= 0).any()), "a packet has no bytes")
    _refuse(not np.isin(packets.type, (1, 2, 3)).all(), "a picture type is not I, P or B")
    _refuse(not np.isin(packets.entry, (0, 1, 2)).all(), "an entry is not 0, 1 or 2")
    _refuse(bool((packets.temporal_id < 0).any()), "a temporal sub-layer is negative")
    _refuse(bool((packets.reads < UNKNOWN_MASK).any()), "a mask of slots is negative")
    _refuse(bool((packets.writes < UNKNOWN_MASK).any()), "a mask of slots is negative")
    known = packets.cost_ms[~np.isnan(packets.cost_ms)]
    _refuse(bool((known < 0).any() or np.isinf(known).any()), "a decode cost is not a time")
    _refuse(bool(np.isinf(packets.slice_qp).any()), "a quantiser is infinite")


def _check_results(results: Results, models: int) -> None:
    count, boxes = len(results.pts), len(results.box)
    lengths = {len(results.model), len(results.value), len(results.first) - 1}
    _refuse(lengths != {count}, "the columns of results differ in length")
    lengths = {len(results.label), len(results.score), boxes}
    _refuse(lengths != {boxes} or results.box.shape[1:] != (4,), "boxes are not (b, 4)")
    starts = results.first
    _refuse(
        int(starts[0]) != 0 or int(starts[-1]) != boxes or bool((np.diff(starts) < 0).any()),
        "the boxes of results do not follow each other",
    )
    _refuse(
        bool(((results.model < 0) | (results.model >= models)).any()),
        "a result is of a model without a name",
    )
    _refuse(bool(np.isinf(results.box).any()), "a box is infinite")


def _refuse(wrong: bool, what: str) -> None:
    if wrong:
        raise TraceError(f"not a trace: {what}")
