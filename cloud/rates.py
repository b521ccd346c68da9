"""How many requests a second: token buckets, of each principal and of each developer.

A bucket holds at most `BURST_S` seconds' worth of requests and fills steadily. A request takes
one from its principal's bucket and one from its developer's, or is refused and takes none: a
developer who sends too much, from however many devices, uses up its own share alone.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable

from triparty.cloud.accounts import Principal
from triparty.common.buckets import Buckets
from triparty.common.errors import LimitError

BURST_S = 10.0


class RequestRates:
    """Counts the requests of everybody who has a token."""

    def __init__(
        self,
        *,
        per_principal: float,
        per_developer: float,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """Full buckets.

        Args:
            per_principal: requests a second of one principal.
            per_developer: requests a second of a developer and its devices together.
            clock_s: seconds that never go back.
        """
        self._principals = _buckets(per_principal)
        self._developers = _buckets(per_developer)
        self._clock_s = clock_s
        self._lock = threading.Lock()

    def take(self, principal: Principal) -> None:
        """Counts a request.

        Raises:
            LimitError: too many; `extra["retry_after_s"]` is when the next one is taken.
        """
        with self._lock:
            now_s = self._clock_s()
            own = self._principals.filled(principal.id, now_s)
            shared = self._developers.filled(principal.developer or principal.id, now_s)
            wait_s = max(self._principals.wait_s(own), self._developers.wait_s(shared))
            if not wait_s:
                own.left -= 1
                shared.left -= 1
        if wait_s:
            raise LimitError(
                "too many requests: this principal, or all of its developer together, sent "
                "more than this cloud takes a second",
                retry_after_s=math.ceil(wait_s),
            )


def _buckets(per_s: float) -> Buckets:
    return Buckets(per_s=per_s, most=max(1.0, per_s * BURST_S))
