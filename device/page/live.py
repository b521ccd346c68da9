"""How cameras stand, as the page's scripts read it; pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, Final

from triparty.device.gate.recall import Estimate
from triparty.device.gateway.status import CameraStatus, FilterStatus, GatewayStatus
from triparty.device.page.feed import Moment, Sample
from triparty.device.page.planned import models, plan_of
from triparty.device.page.spending import Spending, spending
from triparty.device.streams.status import State

STALE_S: Final = 5.0
"""A gateway that was silent for so long is in trouble: it should speak once a second."""
SMOOTH: Final = 6
"""Samples over which a point of the plots is a mean."""
_MOOD: Final[Mapping[State, str]] = {
    State.LIVE: "good",
    State.CONNECTING: "calm",
    State.STALLED: "warn",
    State.WAITING: "warn",
    State.ENDED: "calm",
    State.FAILED: "bad",
    State.REMOVED: "calm",
}


def live(moment: Moment, wall: float) -> dict[str, Any]:
    """All of it.

    Args:
        moment: the last that was heard.
        wall: the time now, in seconds since 1970.
    """
    status, before = moment.status, moment.before
    old = before.status if before is not None else None
    seconds = moment.wall - before.wall if before is not None else 0.0
    spent = spending(status, old, seconds)
    earlier = {camera.name: camera for camera in old.cameras} if old is not None else {}
    return {
        "wall": round(wall, 3),
        "age_s": round(max(0.0, wall - moment.wall), 1),
        "is_stale": wall - moment.wall > STALE_S,
        "seconds": round(status.seconds, 1),
        "budget_cores": status.budget_cores,
        "used_cores": _rate(status, old, "measured_ms", seconds, 1e-3),
        "budget_share": _share_between(status, old, "measured_ms", "granted_ms"),
        "cpu_ms_per_s": _cpu(spent, 1e3 * status.budget_cores),
        "saved_share": saved_share(status.measured_ms, status.expected_ms),
        "packets_per_s": _of_cameras(status, earlier, seconds),
        "events": sum(camera.events for camera in status.cameras),
        "frames_dropped": status.frames_dropped,
        "write_failures": status.write_failures,
        "refused": status.refused,
        "audits": [
            {"task": task, "recall": _estimate(of.recall), "accuracy": _estimate(of.accuracy)}
            for task, of in status.audits.items()
        ],
        "audited_groups": status.audited_groups,
        "filters": [_filter(one) for one in status.filters],
        "models": models(status, spent),
        "plan": plan_of(status),
        "cameras": [_camera(one, earlier.get(one.name), seconds) for one in status.cameras],
    }


def history(samples: Sequence[Sample]) -> dict[str, Any]:
    """The plots: a point for every two samples that follow each other, smoothed."""
    points = []
    for place, (_, after) in enumerate(pairwise(samples)):
        first = samples[max(0, place + 1 - SMOOTH)]
        points.append(
            {
                "wall": round(after.wall, 1),
                "saved": saved_share(
                    after.measured_ms - first.measured_ms, after.expected_ms - first.expected_ms
                ),
                "budget": _share(
                    after.measured_ms - first.measured_ms, after.granted_ms - first.granted_ms
                ),
                "recall": {task: _rounded(found) for task, found in after.recall.items()},
            }
        )
    return {"points": points}


def saved_share(measured_ms: float, expected_ms: float) -> float | None:
    """What gating saved of a full decode's CPU time; None where nothing was to be decoded."""
    if expected_ms <= 0:
        return None
    return round(min(1.0, max(0.0, 1.0 - measured_ms / expected_ms)), 4)


def _camera(
    camera: CameraStatus, before: CameraStatus | None, seconds: float
) -> dict[str, Any]:
    stream = camera.stream
    arrived = _came(camera, before)
    return {
        "name": camera.name,
        "address": stream.address,
        "state": stream.state.value,
        "mood": _MOOD[stream.state],
        "error": stream.last_error if stream.state is not State.LIVE else None,
        "codec": stream.codec,
        "width": stream.width,
        "height": stream.height,
        "packets": camera.arrived,
        "packets_per_s": round(arrived / seconds, 1) if seconds > 0 else None,
        "decoded_share": _share(camera.decoded, camera.arrived),
        "saved_share": saved_share(camera.cpu_ms, camera.expected_ms),
        "looks": camera.looks,
        "look_age_s": round(camera.look_age_s, 1),
        "overdue": camera.overdue,
        "whole": camera.whole,
        "gaps": stream.gaps,
        "corrupt": stream.corrupt,
        "events": camera.events,
        "answers": {task: plain(answer) for task, answer in camera.answers.items()},
    }


def _came(camera: CameraStatus, before: CameraStatus | None) -> int:
    """Packets that came since; one that was begun anew meanwhile counts from nothing."""
    if before is None:
        return 0
    since = camera.arrived - before.arrived
    return since if since >= 0 else camera.arrived


def plain(answer: Any) -> Any:
    """An answer as JSON has it; of boxes, how many there are."""
    if isinstance(answer, tuple):
        is_boxes = bool(answer) and isinstance(answer[0], tuple)
        return len(answer) if is_boxes else list(answer)
    return answer


def _filter(one: FilterStatus) -> dict[str, Any]:
    return {
        "name": one.name,
        "model": one.model,
        "rate": round(one.filter_rate, 4),
        "accuracy": None if one.accuracy is None else round(one.accuracy, 4),
        "target": one.target_accuracy,
        "drifting": one.is_drifting,
    }


def _cpu(spent: Spending | None, budget: float) -> dict[str, float] | None:
    """The whole CPU of the site, in ms of each second."""
    if spent is None:
        return None
    shown = {
        "decoding": spent.decoding,
        "decoding_budget": budget,
        "filters": spent.filters,
        "models": spent.of_models,
        "links": spent.links,
        "together": spent.together,
    }
    return {name: round(ms, 2) for name, ms in shown.items()}


def _of_cameras(
    status: GatewayStatus, earlier: Mapping[str, CameraStatus], seconds: float
) -> float | None:
    if seconds <= 0:
        return None
    came = sum(_came(camera, earlier.get(camera.name)) for camera in status.cameras)
    return round(came / seconds, 1)


def _rate(
    status: GatewayStatus, old: GatewayStatus | None, name: str, seconds: float, unit: float
) -> float | None:
    if old is None or seconds <= 0:
        return None
    change: float = getattr(status, name) - getattr(old, name)
    return round(change * unit / seconds, 3)


def _share_between(
    status: GatewayStatus, old: GatewayStatus | None, part: str, whole: str
) -> float | None:
    if old is None:
        return None
    return _share(
        getattr(status, part) - getattr(old, part), getattr(status, whole) - getattr(old, whole)
    )


def _share(part: float, whole: float) -> float | None:
    return round(part / whole, 4) if whole > 0 else None


def _estimate(estimate: Estimate) -> dict[str, Any]:
    share, low, high = _rounded((estimate.share, estimate.low, estimate.high))
    return {"share": share, "low": low, "high": high, "groups": estimate.groups}


def _rounded(values: tuple[float, float, float]) -> list[float | None]:
    """Of what is no number nothing is told: JSON has no word for it."""
    return [round(value, 4) if value == value else None for value in values]
