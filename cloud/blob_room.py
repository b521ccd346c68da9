"""How much room each developer's blobs take: bytes and numbers, uploads under way included."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from triparty.common.errors import LimitError

if TYPE_CHECKING:
    from triparty.cloud.blobs import BlobKey

PROMISE_S = 3600.0
"""How long an upload that nobody sends to keeps room for the bytes that it announced."""
_ASK_AGAIN_S = 3600


@dataclass(frozen=True)
class BlobQuota:
    """What one developer may take.

    Attributes:
        bytes: of verified blobs, and what unfinished uploads announced.
        blobs: verified ones and unfinished uploads.
        uploads: unfinished ones.
    """

    bytes: int
    blobs: int
    uploads: int


@dataclass(frozen=True)
class Usage:
    """What all blobs take.

    Attributes:
        bytes: of verified blobs.
        uploads: that have not ended.
    """

    bytes: int
    uploads: int


@dataclass
class _Stored:
    """What a developer's verified blobs take."""

    bytes: int
    blobs: int


@dataclass
class _Promise:
    """The room of an upload that has not ended: what it announced, for a while."""

    total: int
    since_s: float


class BlobRoom:
    """The room of all developers; not for two threads at a time.

    Whatever changes a developer's blobs measures that developer first, so that each change is
    counted once.
    """

    def __init__(
        self,
        quota: BlobQuota,
        *,
        sent: Callable[[BlobKey], int],
        is_under_way: Callable[[BlobKey], bool],
        clock_s: Callable[[], float],
    ) -> None:
        """Knows no developer yet.

        Args:
            quota: of each developer.
            sent: bytes that an unfinished upload takes on the disk.
            is_under_way: whether somebody sends to an upload.
            clock_s: the time, in seconds since 1970.
        """
        self._quota = quota
        self._sent = sent
        self._is_under_way = is_under_way
        self._clock_s = clock_s
        self._stored: dict[str, _Stored] = {}
        self._promised: dict[str, dict[BlobKey, _Promise]] = defaultdict(dict)

    def is_measured(self, developer: str) -> bool:
        """Whether `measured` was called for a developer."""
        return developer in self._stored

    def measured(self, developer: str, sizes: list[int], uploads: Iterable[BlobKey]) -> None:
        """Takes in what a developer has; only the first time counts."""
        if developer in self._stored:
            return
        self._stored[developer] = _Stored(sum(sizes), len(sizes))
        for key in uploads:
            self._promised[developer].setdefault(
                key, _Promise(self._sent(key), self._clock_s())
            )

    def check(self, key: BlobKey, total: int) -> None:
        """Returns only if an upload of `total` bytes may begin or go on.

        Raises:
            LimitError: it would take its developer over the quota; `extra["limit"]`.
        """
        stored = self._stored[key.developer]
        others = [other for other in self._promised[key.developer] if other != key]
        if len(others) >= self._quota.uploads:
            raise _over(
                self._quota.uploads, "unfinished uploads", "finish those, or wait until they go"
            )
        if stored.blobs + len(others) >= self._quota.blobs:
            raise _over(self._quota.blobs, "blobs", "ask its operator for more")
        promised = sum(self._room_of(other) for other in others)
        if stored.bytes + promised + total > self._quota.bytes:
            raise _over(self._quota.bytes, "bytes", "ask its operator for more room")

    def promise(self, key: BlobKey, total: int) -> None:
        """Keeps room for an upload that begins or goes on."""
        self._promised[key.developer][key] = _Promise(total, self._clock_s())

    def pause(self, key: BlobKey) -> None:
        """Nobody sends to an upload from here on: its promise runs out."""
        if promise := self._promised[key.developer].get(key):
            promise.since_s = self._clock_s()

    def end(self, key: BlobKey) -> None:
        """Gives the room of an unfinished upload back."""
        self._promised[key.developer].pop(key, None)

    def add(self, key: BlobKey, size: int) -> None:
        """Counts a new blob of a measured developer."""
        stored = self._stored[key.developer]
        stored.bytes += size
        stored.blobs += 1

    def remove(self, key: BlobKey, size: int) -> None:
        """Counts a blob of a measured developer no more."""
        stored = self._stored[key.developer]
        stored.bytes -= size
        stored.blobs -= 1

    def usage(self, developers: Iterable[str]) -> Usage:
        """What measured developers take."""
        chosen = list(developers)
        return Usage(
            sum(self._stored[developer].bytes for developer in chosen),
            sum(len(self._promised[developer]) for developer in chosen),
        )

    def _room_of(self, key: BlobKey) -> int:
        """What an unfinished upload takes: what it announced, later only what it sent."""
        promise = self._promised[key.developer][key]
        if self._is_under_way(key) or self._clock_s() < promise.since_s + PROMISE_S:
            return promise.total
        return self._sent(key)


def _over(limit: int, what: str, remedy: str) -> LimitError:
    return LimitError(
        f"this blob would take you over your {limit} {what} on this cloud; {remedy}",
        retry_after_s=_ASK_AGAIN_S,
        limit=limit,
    )
