"""Reads the configuration again while cameras are watched, and says what changed in it.

Cameras and filters may come, go and change, and so may the budget and thresholds; all else is
fixed when the gateway is made. A new file that is wrong is refused as a whole, and what ran
goes on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from triparty.common.errors import SettingsError
from triparty.device.gateway.settings import CameraSettings, WatchSettings

FIXED = (
    "folder",
    "gate",
    "models",
    "tasks",
    "results",
    "metrics",
    "mqtt",
    "webhooks",
    "page",
    "reload",
)
"""Tables that only a restart changes, but for what `LIVE` names."""
LIVE = {
    "gate": ("budget_ms",),
    "models": ("least_score",),
    "tasks": ("events", "hold_s", "looks"),
}
"""Keys that may change while it runs."""
Stamp = tuple[int, int, int]


@dataclass(frozen=True)
class Changes:
    """What becomes of cameras.

    Attributes:
        added: new ones.
        changed: those whose settings are others now.
        removed: names of those that are gone.
    """

    added: tuple[CameraSettings, ...]
    changed: tuple[CameraSettings, ...]
    removed: tuple[str, ...]

    def __str__(self) -> str:
        """For the log."""
        counts = (len(self.added), len(self.changed), len(self.removed))
        return "cameras: {} added, {} changed, {} removed".format(*counts)


def changes(
    old: WatchSettings,
    new: WatchSettings,
    *,
    has_moved: Callable[[CameraSettings], bool] = lambda camera: False,
) -> Changes:
    """What a new configuration changes.

    Args:
        old: that runs.
        new: that shall run.
        has_moved: whether a camera of the same settings is at another address, for example
            by the password in its file.

    Raises:
        SettingsError: it changes something else than cameras and filters.
    """
    fixed = [name for name in FIXED if _fixed(old, name) != _fixed(new, name)]
    if fixed:
        raise SettingsError(
            "while it runs only cameras, defaults, filters, the budget and thresholds can "
            f"change, and [{fixed[0]}] did: put it back, or start again"
        )
    before = {camera.name: camera for camera in old.cameras}
    names = {camera.name for camera in new.cameras}
    return Changes(
        added=tuple(camera for camera in new.cameras if camera.name not in before),
        changed=tuple(
            camera
            for camera in new.cameras
            if camera.name in before and (camera != before[camera.name] or has_moved(camera))
        ),
        removed=tuple(name for name in before if name not in names),
    )


def _fixed(settings: WatchSettings, name: str) -> Any:
    """A table, or tables, without what may change."""
    found, live = getattr(settings, name), set(LIVE.get(name, ()))
    if isinstance(found, tuple):
        return [each.model_dump(exclude=live) for each in found]
    return found.model_dump(exclude=live) if live else found


class Reloader:
    """Knows when the file should be read again: when asked, or when it is another one.

    Args:
        file: of the configuration.
        on_change: whether to look for a changed file.
    """

    def __init__(self, file: Path, *, on_change: bool) -> None:
        """Takes the file as it is now for the one that runs."""
        self._file, self._on_change = file, on_change
        self._asked = False
        self._stamp = self._look()

    def ask(self) -> None:
        """Makes it due; may be called by a signal handler."""
        self._asked = True

    def is_due(self) -> bool:
        """Whether to read the file now; it is not due again before something new happens."""
        stamp = self._look() if self._on_change else None
        is_another = stamp is not None and stamp != self._stamp
        is_due, self._asked = self._asked or is_another, False
        self._stamp = stamp or self._stamp
        return is_due

    def _look(self) -> Stamp | None:
        """What tells one file from another; None while there is none."""
        try:
            found = self._file.stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_size, found.st_ino
