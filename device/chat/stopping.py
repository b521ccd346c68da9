"""Ctrl-C stops an answer where nothing is half done: between two of its pieces."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

PATIENCE_S = 0.5


@contextmanager
def stoppable(patience_s: float = PATIENCE_S) -> Iterator[Callable[[], bool]]:
    """While the block runs, Ctrl-C is noted; what it yields says whether that happened.

    An exception in the middle of a request may leave a lock of the connection's taken for ever.
    So it comes only where the block does not ask for `patience_s`, or at a second Ctrl-C.

    Args:
        patience_s: how long after Ctrl-C the block may go on without asking.

    Raises:
        KeyboardInterrupt: in the block, in these two cases.
    """
    if threading.current_thread() is not threading.main_thread() or not hasattr(
        signal, "setitimer"
    ):
        yield lambda: False
        return
    is_asked = False

    def note(number: int, frame: FrameType | None) -> None:
        nonlocal is_asked
        if is_asked:
            raise KeyboardInterrupt
        is_asked = True
        signal.setitimer(signal.ITIMER_REAL, patience_s)

    def lose_patience(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    alarm = signal.signal(signal.SIGALRM, lose_patience)
    interrupt = signal.signal(signal.SIGINT, note)
    try:
        yield lambda: is_asked
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGINT, interrupt)
        signal.signal(signal.SIGALRM, alarm)
