"""Reads pictures' headers by FFmpeg's key flag alone, and waits for what threads do."""

from __future__ import annotations

import time
from collections.abc import Callable

from triparty.device.streams.packets import Entry, Picture, PictureType


class KeyFlags:
    """A reader of headers for streams whose keyframes are clean entries."""

    ungateable: str | None = None

    def read(self, data: bytes | memoryview, keyframe: bool) -> Picture:
        if keyframe:
            return Picture(PictureType.I, reference=True, entry=Entry.CLEAN)
        return Picture(PictureType.P, reference=True)


def key_flags(codec: str, extradata: bytes | None) -> KeyFlags:
    return KeyFlags()


def until(what: Callable[[], object], *, within_s: float = 30.0) -> None:
    """Waits until something holds; a bound against hanging, not a measurement."""
    end = time.monotonic() + within_s
    while not what():
        if time.monotonic() > end:
            raise AssertionError("it did not happen")
        time.sleep(0.01)
