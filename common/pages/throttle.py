"""How often a client may be wrong about a password."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from typing import Final

from starlette.types import Scope

from triparty.common.buckets import Buckets
from triparty.common.errors import LimitError
from triparty.common.hosts import network_of

AT_ONCE: Final = 5
PER_MINUTE: Final = 5
_LONGEST_NAME: Final = 64


class LoginThrottle:
    """Attempts of each network: a few at once, then a few a minute; any thread may call.

    Args:
        clock_s: seconds.
    """

    def __init__(self, *, clock_s: Callable[[], float] = time.monotonic) -> None:
        """All are left."""
        self._buckets = Buckets(per_s=PER_MINUTE / 60, most=AT_ONCE)
        self._clock_s = clock_s
        self._lock = threading.Lock()

    def take(self, scope: Scope) -> None:
        """Takes an attempt of who asks, before it is known whether it is right.

        Raises:
            LimitError: there is none left; `extra["retry_after_s"]` is when there is.
        """
        with self._lock:
            bucket = self._buckets.filled(_network(scope), self._clock_s())
            if wait_s := self._buckets.wait_s(bucket):
                raise LimitError(
                    "too many attempts from this address: wait a little",
                    retry_after_s=math.ceil(wait_s),
                )
            bucket.left -= 1

    def give_back(self, scope: Scope) -> None:
        """Returns the attempt of somebody who was right."""
        with self._lock:
            bucket = self._buckets.filled(_network(scope), self._clock_s())
            bucket.left = min(float(AT_ONCE), bucket.left + 1)


def _network(scope: Scope) -> str:
    client = scope.get("client")
    return network_of(client[0])[:_LONGEST_NAME] if client else "unknown"
