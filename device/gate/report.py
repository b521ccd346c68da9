"""How gateable a camera is: what its stream costs, what can be left out, and what to change."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from triparty.device.gate.fleet import Tables, tables
from triparty.device.gate.recording import MOTION
from triparty.device.gate.traces import Trace
from triparty.device.streams.packets import Entry, PictureType

LONG_GROUP_S = 2.0
FEW_FREE = 0.2
USEFUL_AUC = 0.65
BUSY = 0.25  # the share of pictures, those that change most, which sizes should point out


@dataclass(frozen=True)
class Signal:
    """How well packet sizes tell something.

    Attributes:
        of: what they should tell.
        auc: chance that a predicted picture where it happened is larger than one where it did
            not: 0.5 says nothing, below 0.5 the order is turned round.
    """

    of: str
    auc: float


@dataclass(frozen=True)
class Gateability:
    """What gating has to work with on one stream.

    Attributes:
        camera: name.
        codec: name.
        container: name.
        size: width and height in pixels.
        fps: frames a second.
        seconds: looked at.
        packets: looked at.
        kilobits_per_s: mean bit rate.
        types: share of I, P and B pictures.
        type_bytes: share of bytes in I, P and B pictures.
        group_frames: median and largest number of frames from entry to entry.
        group_seconds: the same in seconds.
        open_groups: share of entries that are open.
        free_share: share of pictures that nobody refers to.
        ungateable: why the stream must be decoded whole, or None.
        decode_ms: CPU ms a frame, mean; measured, or expected by sizes.
        measured: whether decoding was measured.
        keyframe_cost: cost of entries alone, as a share of full decode.
        reference_cost: cost without the pictures that nobody refers to, likewise.
        closure_tax: what a picture costs with all that it needs, when nothing was decoded yet,
            over what it costs alone; means over all pictures.
        largest_closure_ms: cost of the dearest picture with all that it needs.
        signals: what sizes tell.
    """

    camera: str
    codec: str
    container: str
    size: tuple[int, int]
    fps: float
    seconds: float
    packets: int
    kilobits_per_s: float
    types: dict[str, float]
    type_bytes: dict[str, float]
    group_frames: tuple[float, int]
    group_seconds: tuple[float, float]
    open_groups: float
    free_share: float
    ungateable: str | None
    decode_ms: float
    measured: bool
    keyframe_cost: float
    reference_cost: float
    closure_tax: float
    largest_closure_ms: float
    signals: tuple[Signal, ...]

    def inference_fps_needed(self, filter_rate: float) -> float:
        """Above this, decoding is the bottleneck; T_inference > (1 - r) T_decode, thesis 2.1.1.

        Args:
            filter_rate: r, the share of decoded frames that a filter spares the model.

        Returns:
            Frames a second that model and decoder would balance at, on a core each.
        """
        return (1.0 - filter_rate) * 1000.0 / self.decode_ms


def gateability(trace: Trace) -> Gateability:
    """Looks at one stream.

    Args:
        trace: of some seconds at least; costs and results are used where they are known.

    Raises:
        TraceError: no packet at which decoding may start.
    """
    known = tables([trace])
    packets = trace.from_first_entry().packets
    entries = np.flatnonzero(known.entry)
    groups = np.diff(np.append(entries, len(packets)))
    closed = groups[:-1] if len(groups) > 1 else groups  # the last group may be cut
    chain = known.cost_before - known.cost_before[known.entry_place]
    closure = chain[:, 0] + np.where(known.leading, chain[:, 1], 0.0) + known.cost
    full = float(known.cost.sum())
    fps = len(packets) / trace.duration if trace.duration else trace.origin.fps
    return Gateability(
        camera=trace.origin.camera,
        codec=trace.origin.codec,
        container=trace.origin.container,
        size=(trace.origin.width, trace.origin.height),
        fps=trace.origin.fps,
        seconds=trace.duration,
        packets=len(packets),
        kilobits_per_s=float(known.size.sum()) * 8 / 1000 / trace.duration,
        types=_mix(packets.type, np.ones(len(packets))),
        type_bytes=_mix(packets.type, known.size),
        group_frames=(float(np.median(closed)), int(groups.max())),
        group_seconds=(float(np.median(closed)) / fps, float(groups.max()) / fps),
        open_groups=float((packets.entry[entries] == Entry.OPEN).mean()),
        free_share=float((~known.reference).mean()),
        ungateable=trace.origin.ungateable,
        decode_ms=full / len(packets),
        measured=bool((~np.isnan(packets.cost_ms)).any()),
        keyframe_cost=float(known.cost[entries].sum()) / full,
        reference_cost=float(known.cost[known.reference].sum()) / full,
        closure_tax=float(closure.mean() / known.cost.mean()),
        largest_closure_ms=float(closure.max()),
        signals=_signals(trace, known),
    )


def advice(found: Gateability) -> tuple[str, ...]:
    """What to change in the camera's settings so that more can be left out, in plain words."""
    if found.ungateable is not None:
        return (
            f"this stream is decoded whole: {found.ungateable}",
            "switch off intra refresh or interlacing in the camera, or choose H.264 or H.265",
        )
    lines = []
    second = max(1, round(found.fps))
    if found.group_seconds[0] > LONG_GROUP_S:
        lines.append(
            f"set the I-frame interval (GOP) to {second}, a second: it is "
            f"{found.group_frames[0]:.0f} frames ({found.group_seconds[0]:.1f} s), so that a "
            f"look in between costs up to {found.largest_closure_ms:.0f} ms"
        )
    elif found.group_frames[0] > 1 and found.group_seconds[0] < 0.5:
        lines.append(
            f"keyframes come every {found.group_seconds[0]:.2f} s and take "
            f"{found.keyframe_cost:.0%} of decoding: a GOP of {second} frames needs less"
        )
    if found.group_frames[0] > 1 and found.free_share < FEW_FREE:
        lines.append(
            "switch on B-frames that nobody refers to, or hierarchical P (SVC-T): "
            f"{found.free_share:.0%} of pictures can be left out without loss now, two of "
            "three would be usual"
        )
    if found.open_groups > 0:
        lines.append(
            "choose closed GOPs: pictures before an open entry wait for the group before"
        )
    if found.group_frames[0] == 1:
        lines.append(
            "every picture stands alone, so any can be left out; H.264 or H.265 with a short "
            "GOP would send far fewer bytes"
        )
    weak = [s for s in found.signals if 1 - USEFUL_AUC < s.auc < USEFUL_AUC]
    if found.signals and len(weak) == len(found.signals):
        lines.append(
            "choose a variable bit rate (constant quality): sizes say little here, a constant "
            "bit rate hides what moves"
        )
    return tuple(lines) or ("nothing to change: this stream gates well as it is",)


def auc(score: NDArray[np.float64], positive: NDArray[np.bool_]) -> float:
    """Chance that a positive scores above a negative, ties counted half; NaN without both.

    Args:
        score: (n,)
        positive: (n,)
    """
    high, low = score[positive], np.sort(score[~positive])
    if not len(high) or not len(low):
        return float("nan")
    below = np.searchsorted(low, high, side="left")
    upto = np.searchsorted(low, high, side="right")
    return float((below + upto).sum() / (2 * len(high) * len(low)))


def _mix(types: NDArray[np.int8], weight: NDArray[np.float64]) -> dict[str, float]:
    total = float(weight.sum())
    return {kind.name: float(weight[types == kind].sum()) / total for kind in PictureType}


def _signals(trace: Trace, known: Tables) -> tuple[Signal, ...]:
    """What the sizes of predicted pictures tell of motion and of each task's changes."""
    predicted = (known.type != PictureType.I) & known.target
    found = []
    cut = trace.from_first_entry()
    if MOTION in cut.models:
        motion = _values(cut, cut.models.index(MOTION))
        usable = predicted & ~np.isnan(motion)
        if usable.any():
            moving = motion > np.quantile(motion[usable], 1 - BUSY)
            found.append(Signal("motion", auc(known.size[usable], moving[usable])))
    order = np.flatnonzero(known.target)
    order = order[np.argsort(known.rank[order])]
    for task, name in enumerate(known.tasks):
        state = known.state[order, task]
        changed = np.zeros(len(known.size), dtype=bool)
        changed[order[1:]] = state[1:] != state[:-1]
        if known.wanted[task]:
            changed[order] = state > 0
        found.append(Signal(name, auc(known.size[predicted], changed[predicted])))
    return tuple(signal for signal in found if not np.isnan(signal.auc))


def _values(trace: Trace, model: int) -> NDArray[np.float64]:
    """(n,) what a model said of each packet's frame, NaN where nothing."""
    rows = np.flatnonzero(trace.results.model == model)
    order = np.argsort(trace.packets.pts)
    place = order[np.searchsorted(trace.packets.pts, trace.results.pts[rows], sorter=order)]
    values = np.full(len(trace.packets), np.nan)
    values[place] = trace.results.value[rows]
    return values
