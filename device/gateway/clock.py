"""Whose time rounds follow: the wall's, or that of files read as fast as it goes."""

from __future__ import annotations

import threading
import time
from typing import Protocol


class Clock(Protocol):
    """Time in seconds, and waiting for it.

    Attributes:
        virtual: whether waiting costs nothing, and rounds wait for what they began.
    """

    virtual: bool

    def now(self) -> float:
        """Seconds; never goes back."""

    def wait_until(self, then: float) -> None:
        """Waits; `interrupt` ends it early."""

    def interrupt(self) -> None:
        """Ends a wait, and those to come."""


class WallClock:
    """The monotonic clock."""

    virtual = False

    def __init__(self) -> None:
        """Nobody waits."""
        self._stopped = threading.Event()

    def now(self) -> float:
        """Seconds of the monotonic clock."""
        return time.monotonic()

    def wait_until(self, then: float) -> None:
        """Sleeps."""
        self._stopped.wait(max(0.0, then - time.monotonic()))

    def interrupt(self) -> None:
        """Ends a sleep; called from signal handlers and other threads."""
        self._stopped.set()


class VirtualClock:
    """Begins at 0 and jumps to whatever is waited for: files are read as fast as it goes."""

    virtual = True

    def __init__(self) -> None:
        """It is 0."""
        self._now = 0.0

    def now(self) -> float:
        """Seconds of film."""
        return self._now

    def wait_until(self, then: float) -> None:
        """Goes there at once."""
        self._now = max(self._now, then)

    def interrupt(self) -> None:
        """Nobody waits."""
