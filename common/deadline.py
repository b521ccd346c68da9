"""A time by which something has to be there, whatever the network does."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from triparty.common.errors import DeadlineError


class Deadline:
    """A deadline that begins to run when it is made.

    Args:
        seconds: until then; None: never.
        clock: tells seconds, only rising.
        sleep: waits.
    """

    def __init__(
        self,
        seconds: float | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Begins to run."""
        self._seconds, self._clock, self._sleep = seconds, clock, sleep
        self._end = math.inf if seconds is None else clock() + seconds

    def left_s(self) -> float:
        """Seconds until then, more than 0; infinite without a deadline.

        Raises:
            DeadlineError: it has passed.
        """
        left = self._end - self._clock()
        if left <= 0:
            raise DeadlineError(
                f"the answer was not complete within {self._seconds:g} seconds: ask again, or "
                "give it more time"
            )
        return left

    def grace(self, seconds: float) -> None:
        """Leaves at least so much time from now, to tidy up."""
        self._end = max(self._end, self._clock() + seconds)

    def sleep(self, seconds: float) -> None:
        """Waits, but not beyond it.

        Raises:
            DeadlineError: it has passed.
        """
        self._sleep(min(seconds, self.left_s()))
        self.left_s()
