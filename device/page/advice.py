"""How gateable a camera is, by the last stretch of its trace, and what to change in it."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from triparty.common.errors import TraceError
from triparty.device.gate.report import Gateability, advice, gateability
from triparty.device.gate.trace_files import SUFFIX, read_trace
from triparty.device.gateway.recorder import traces_of
from triparty.device.gateway.settings import WatchSettings
from triparty.device.gateway.status import CameraStatus

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Advice:
    """What to change in a camera.

    Attributes:
        lines: in plain words, the most important first.
        found: what they rest on; None if there is no trace to look at.
    """

    lines: tuple[str, ...]
    found: Gateability | None = None


def advice_for(camera: CameraStatus, settings: WatchSettings) -> Advice:
    """Looks at a camera's newest trace; reads a file, so not for the loop's thread."""
    segment = _newest(settings, camera.name)
    if segment is None:
        return Advice((*_by_status(camera), _without_trace(settings)))
    try:
        found = gateability(read_trace(segment))
    except (TraceError, OSError) as error:
        _log.info("no advice for %s: %s", camera.name, error)
        return Advice((*_by_status(camera), "the newest trace is too short to say more"))
    return Advice((*_by_status(camera), *advice(found)), found)


def _by_status(camera: CameraStatus) -> tuple[str, ...]:
    """What shows without a trace."""
    lines = []
    if camera.overdue:
        lines.append(
            f"not looked at for {camera.look_age_s:.0f} s: raise budget_ms of [gate], or watch "
            "fewer cameras"
        )
    if camera.whole is not None:
        lines.append(f"it is decoded whole: {camera.whole}")
    return tuple(lines)


def _without_trace(settings: WatchSettings) -> str:
    if settings.results.traces is None:
        return (
            "for advice about its stream set traces of [results] for a while, or run "
            "'triparty device gate trace' and 'report' on a recording"
        )
    return "its trace is not long enough yet to say more"


def _newest(settings: WatchSettings, camera: str) -> Path | None:
    """The last segment that was written of a camera's traces."""
    if settings.results.traces is None:
        return None
    folder = traces_of(settings.folder / settings.results.traces, camera)
    segments = sorted(
        folder.glob(f"*/*{SUFFIX}"), key=lambda path: (path.parent.name, path.name)
    )
    return segments[-1] if segments else None
