"""What one developer's devices may use of the cloud at once, so that others have the rest.

Sessions are counted by `sessions`, loaded models by `hosting`; steps and cache memory here.
Everything runs in the event loop's thread.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from triparty.cloud.serving.hosting import AnyHosted, Hosted
from triparty.cloud.serving.sessions import Session
from triparty.common.errors import LimitError

RETRY_S = 1
FIRST_ROWS = 64


class Shares:
    """Counts steps, and the memory of sessions, by developer."""

    def __init__(self, *, steps: int, cache_bytes: int) -> None:
        """Nothing is used.

        Args:
            steps: most steps of a developer that are received, wait or run.
            cache_bytes: most memory of a developer's sessions.
        """
        self._most_steps = steps
        self._most_bytes = cache_bytes
        self._steps: Counter[str] = Counter()

    @contextmanager
    def step(self, developer: str) -> Iterator[None]:
        """One step of a developer, from before its body is read until it is answered.

        Raises:
            LimitError: too many at once.
        """
        if self._steps[developer] >= self._most_steps:
            raise LimitError(
                f"{self._most_steps} steps of this developer's devices are waiting: repeat it",
                retry_after_s=RETRY_S,
            )
        self._steps[developer] += 1
        try:
            yield
        finally:
            self._steps[developer] -= 1
            if not self._steps[developer]:
                del self._steps[developer]

    def more_bytes(
        self,
        session: Session[AnyHosted],
        hosted: Hosted,
        rows: int,
        everybody: Iterable[Session[AnyHosted]],
    ) -> int:
        """How much more memory a session needs that will hold `rows` rows.

        Args:
            session: whose memory.
            hosted: the decoder that it runs on.
            rows: that it will hold.
            everybody: all sessions; those that are one forward request hold no memory.

        Raises:
            LimitError: over the developer's share.
        """
        info = hosted.engine.info
        reserved = reserved_rows(rows, positions=info.positions) * info.cache_row_bytes
        if reserved <= session.reserved_bytes:
            return 0
        others = sum(
            other.reserved_bytes
            for other in everybody
            if other.developer == session.developer and other is not session
        )
        if others + reserved > self._most_bytes:
            raise LimitError(
                f"the sessions of this developer's devices may use {self._most_bytes} bytes "
                "of memory: close one, or wait until one is dropped",
                retry_after_s=RETRY_S,
            )
        return reserved - session.reserved_bytes


def reserved_rows(rows: int, *, positions: int) -> int:
    """A bound on the rows for which a cache that holds `rows` has allocated memory.

    A cache doubles when it is full, so it never has more than twice what it holds, or
    `FIRST_ROWS`. Rounded up to a power of two, so that few steps change it.
    """
    return min(positions, max(FIRST_ROWS, 1 << (2 * rows - 1).bit_length()))
