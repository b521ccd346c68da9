"""Futures of several threads, put together."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from typing import TypeVar

_T = TypeVar("_T")


def all_of(parts: Sequence[Future[_T]]) -> Future[list[_T]]:
    """A future of all results in order, or of the first error.

    Whatever ends it (an error, a result or an error from outside, cancelling) cancels the
    parts that are not done.

    Args:
        parts: at least one.
    """
    whole: Future[list[_T]] = Future()
    lock, left = threading.Lock(), len(parts)

    def part_done(part: Future[_T]) -> None:
        nonlocal left
        with lock:
            left -= 1
            is_last = left == 0
        if part.cancelled() or whole.done():
            return
        with suppress(InvalidStateError):  # somebody ended it in between
            if error := part.exception():
                whole.set_exception(error)
            elif is_last:
                whole.set_result([each.result() for each in parts])

    def whole_done(_: object) -> None:
        for part in parts:
            part.cancel()

    whole.add_done_callback(whole_done)
    for part in parts:
        part.add_done_callback(part_done)
    return whole
