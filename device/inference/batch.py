"""Several answers in the making side by side, so that the cloud has them in one batch."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import closing

from triparty.common.errors import SettingsError
from triparty.device.inference.generation import Generation, Parts

AT_ONCE = 8


def side_by_side(answers: Sequence[Callable[[], Parts]], at_once: int) -> list[Generation]:
    """The answers, in their order; each has a thread, which waits for the network.

    Args:
        answers: each begins one answer; its parts are those of `generation.collect`.
        at_once: most answers in the making together.

    Raises:
        SettingsError: `at_once` below 1.
        TripartyError: of an answer that failed; those in the making end with their next
            token, the others do not begin.
    """
    if at_once < 1:
        raise SettingsError(f"at-once must be at least 1, got {at_once}")
    has_failed = threading.Event()

    def answered(begin: Callable[[], Parts]) -> Generation | None:
        if has_failed.is_set():
            return None
        try:
            return _unless(has_failed, begin())
        except BaseException:
            has_failed.set()
            raise

    with ThreadPoolExecutor(at_once, thread_name_prefix="answer") as pool:
        futures = [pool.submit(answered, begin) for begin in answers]
        try:
            wait(futures, return_when=FIRST_EXCEPTION)
        except BaseException:  # Ctrl-C
            has_failed.set()
            raise
    failed = (future.exception() for future in futures)
    for error in failed:
        if error is not None:
            raise error
    results = (future.result() for future in futures)
    return [result for result in results if result is not None]


def _unless(has_failed: threading.Event, parts: Parts) -> Generation | None:
    """The whole answer, or None as soon as another one has failed."""
    with closing(parts):
        for part in parts:
            if has_failed.is_set():
                return None
            if isinstance(part, Generation):
                return part
    return None
