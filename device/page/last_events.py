"""The last event of each camera, without asking the database for all of them each second."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from triparty.device.events.event import Event, Events, Wanted

FRESH_S: Final = 1.0
_PAGE: Final = 500


class LastEvents:
    """Remembers the last event of each camera; any thread may ask.

    Args:
        events: where they are recorded.
        clock_s: seconds.
    """

    def __init__(
        self, events: Events, *, clock_s: Callable[[], float] = time.monotonic
    ) -> None:
        """Knows none yet."""
        self._events, self._clock_s = events, clock_s
        self._lock = threading.Lock()
        self._found: dict[str, Event | None] = {}
        self._newest = 0
        self._asked = float("-inf")

    def of(self, cameras: Sequence[str]) -> Mapping[str, Event | None]:
        """By camera; a second old at most.

        Raises:
            UnavailableError: the database does not answer.
        """
        with self._lock:
            is_old = self._clock_s() - self._asked >= FRESH_S
            if is_old and self._found:
                self._take_new()
            for camera in cameras:
                if camera not in self._found:
                    last = self._events.list(Wanted(cameras=(camera,)), limit=1)
                    self._found[camera] = last[0] if last else None
                    self._newest = max([self._newest, *(event.id for event in last)])
            if is_old:
                self._asked = self._clock_s()
            return {camera: self._found[camera] for camera in cameras}

    def _take_new(self) -> None:
        """Takes in what came since; of very many the newest."""
        new = self._events.list(Wanted(after_id=self._newest), limit=_PAGE)
        for event in reversed(new):
            self._found[event.camera] = event
        self._newest = max([self._newest, *(event.id for event in new)])
