"""Streams that one core serves including inference (thesis table 2.5), from measured parts.

A frame costs g + s d + t i: the gate (reading the header included, among as many streams as
are replayed), the share of decode cost that it spends, the share of frames that the model looks
at. Each part is measured here (CPU time) or comes from a replay at 90 % accuracy of counting;
the sum is arithmetic. The model is YOLOX-Nano, the accelerated one FastestDet; the frame filter
is a threshold on the change of luma, as Reducto's simplest feature, set on the clip itself (a
bound from above for such filters). The input filter (InFi) skips frames with nothing to count:
a network that was trained on the two other clips, its threshold also set on the clip itself. A
pair of filter and gate is not measured.
"""

from __future__ import annotations

import time
from functools import cache
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from benchmarks.gating_overhead import microseconds, ours
from benchmarks.gating_runs import ACCURACY, Plan, cost_at, curve, traces_of
from benchmarks.gating_traces import BY_NAME, CLIPS, DETECTORS, data, encoded
from benchmarks.gating_typer import STREAMS, typing_microseconds
from benchmarks.harness import Effort
from triparty.common.nets.training import Course
from triparty.device.filters.filter import Filter
from triparty.device.filters.fitting import Recipe
from triparty.device.filters.measures import count_zero
from triparty.device.filters.scores import best_point
from triparty.device.gate.detectors import Detector
from triparty.device.gate.recording import MOTION, record
from triparty.device.gate.states import states

TYPED = "H.264 without B pictures, mp4"
ROUNDS = 400
LUMA = (128, 72)
FILTER_EPOCHS = 8
LOOKS = 12  # frames on which a detector is timed


def figures(plan: Plan) -> dict[str, Any]:
    """Streams a core for each way, mean over clips, and what they were computed from."""
    model, fast = (_detector_ms(name) for name in DETECTORS[:2])
    gate = _gate_ms(plan.streams)
    found: dict[str, Any] = {
        "clips": {},
        "model_ms": model,
        "accelerated_ms": fast,
        "gate_ms": gate,
    }
    for clip in CLIPS:
        parts = _parts(clip, plan)
        ways = {
            "model": parts["decode_ms"] + model,
            "accelerated": parts["decode_ms"] + fast,
            "accelerated, frame filter": parts["decode_ms"] + parts["looked"] * fast,
            "accelerated, input filter": parts["decode_ms"]
            + parts["filter_ms"]
            + parts["passed"] * fast,
            "gate": gate + parts["share"] * parts["decode_ms"] + parts["targets"] * model,
            "accelerated, gate": gate
            + parts["share"] * parts["decode_ms"]
            + parts["targets"] * fast,
        }
        found["clips"][clip] = parts | {
            "streams_a_core": {way: 1000 / parts["fps"] / cost for way, cost in ways.items()}
        }
    found["gain"] = {
        way: float(
            np.mean(
                [
                    one["streams_a_core"][way] / one["streams_a_core"]["model"]
                    for one in found["clips"].values()
                ]
            )
        )
        for way in ways
    }
    found["thesis_table_2_5"] = {
        "model": 1,
        "accelerated": 30,
        "accelerated, Reducto": 162,
        "accelerated, InFi": 35,
        "gate": 5,
        "accelerated, gate": 169,
    }
    return found


def _gate_ms(streams: int) -> float:
    """CPU ms of one packet's header, windows, network and greedy choice."""
    made = next(one for one in STREAMS if one.name == TYPED)
    each = [
        typing + microseconds(ours, "scan", streams, ROUNDS)
        for typing in typing_microseconds(made, Effort(quick=False))
    ]
    return float(np.median(each)) / 1000


def _parts(clip: str, plan: Plan) -> dict[str, float]:
    """What one clip's frames cost, and how many a gate at 90 % decodes and looks at."""
    (busy,) = traces_of(clip, plan)
    points = curve("ours", clip, plan)
    share = cost_at(points, ACCURACY)
    # Looks between the measured budgets lie on a line, too.
    costs = [0.0, *(one.cost for one in points), 1.0]
    looks = [0.0, *(one.targets for one in points), 1.0]
    return {
        "fps": busy.origin.fps,
        "decode_ms": float(np.nanmean(busy.packets.cost_ms)),
        "share": share,
        "targets": float(np.interp(share, costs, looks)),
        "looked": _filtered(clip, plan),
        "passed": 1 - _skipped(clip, plan),
        "filter_ms": _filter_ms(clip, plan),
    }


def _filtered(clip: str, plan: Plan) -> float:
    """Share of frames that a threshold on motion leaves at 90 % accuracy."""
    (busy,) = traces_of(clip, plan)
    plain = record(encoded(clip, BY_NAME[plan.encoding]))
    model = plain.models.index(MOTION)
    rows = np.flatnonzero(plain.results.model == model)
    rows = rows[np.argsort(plain.results.pts[rows])]
    motion = plain.results.value[rows]
    truth = states(busy, busy.tasks[0])[np.argsort(busy.packets.pts)]
    least = 1.0
    for threshold in np.quantile(motion, np.linspace(0, 0.99, 100)):
        looked = motion >= threshold
        looked[0] = True
        held = truth[np.maximum.accumulate(np.where(looked, np.arange(len(looked)), 0))]
        if (held == truth).mean() >= ACCURACY:
            least = min(least, float(looked.mean()))
    return least


@cache
def _skip_filter(clip: str, plan: Plan) -> Filter:
    """A filter of frames with nothing to count; it never saw the clip."""
    others = [_shown(other, plan) for other in CLIPS if other != clip]
    return Filter.fit(
        np.concatenate([luma for luma, _ in others]),
        np.concatenate([count for _, count in others]),
        count_zero(),
        recipe=Recipe("skip"),
        modality="image",
        course=Course(epochs=FILTER_EPOCHS),
    )


@cache
def _shown(clip: str, plan: Plan) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """(n, 72, 128, 1) the luma planes of a clip, made small, and (n,) how many are counted."""
    (busy,) = traces_of(clip, plan)
    counts = states(busy, busy.tasks[0])[np.argsort(busy.packets.pts)]
    width, height = LUMA
    with av.open(str(encoded(clip, BY_NAME[plan.encoding]))) as container:
        planes = [
            frame.to_ndarray(width=width, height=height, format="gray")[..., None]
            for frame in container.decode(video=0)
        ]
    return np.stack(planes), counts


def _skipped(clip: str, plan: Plan) -> float:
    """Share of frames that the input filter skips at 90 % accuracy."""
    luma, counts = _shown(clip, plan)
    logits = _skip_filter(clip, plan).outputs(luma)[:, 0].astype(np.float64)
    return best_point(logits, counts > 0, ACCURACY).filter_rate


def _filter_ms(clip: str, plan: Plan) -> float:
    """CPU ms of the filter for one frame, its luma plane made small already."""
    luma, _ = _shown(clip, plan)
    made = _skip_filter(clip, plan)
    taken = []
    for frame in luma[: LOOKS + 1]:
        start = time.process_time()
        made.outputs(frame[None])
        taken.append(time.process_time() - start)
    return float(np.median(taken[1:]) * 1000)


def _detector_ms(name: str) -> float:
    """CPU ms of one frame, on one thread."""
    detector = Detector(data() / "models" / "detectors" / f"{name}.onnx")
    taken = []
    with av.open(str(data() / "clips" / f"{CLIPS[1]}.mp4")) as container:
        for number, frame in enumerate(container.decode(video=0)):
            start = time.process_time()
            detector.detect(frame)
            taken.append(time.process_time() - start)
            if number == LOOKS:
                break
    return float(np.median(taken[1:]) * 1000)
