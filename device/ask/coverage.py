"""Of when there is a record at all: "nothing is recorded" is not "nobody was there"; pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from triparty.device.ask.times import Span

Stretch = tuple[float, float]


class Watched(Protocol):
    """Knows when cameras were looked at."""

    @property
    def kept_since(self) -> float | None:
        """What was recorded before has been deleted, in seconds since 1970; None: nothing."""

    def watched(self, camera: str, since: float, until: float) -> Sequence[Stretch]:
        """When a camera was looked at between two times: (since, until), in order."""


def gaps(stretches: Iterable[Stretch], span: Span) -> tuple[Stretch, ...]:
    """What of a span is in none of some stretches.

    Args:
        stretches: in any order; they may overlap.
        span: that is asked about.
    """
    found, at = list[Stretch](), span.since
    for since, until in sorted(stretches):
        if since > at:
            found.append((at, min(since, span.until)))
        at = max(at, until)
        if at >= span.until:
            break
    if at < span.until:
        found.append((at, span.until))
    return tuple((since, until) for since, until in found if until > since)


def joined(looks: Iterable[float], longest_s: float) -> tuple[Stretch, ...]:
    """The stretches that looks at a camera make.

    Args:
        looks: when, in order.
        longest_s: between two looks of one stretch; and how long one look holds.
    """
    found = list[list[float]]()
    for at in looks:
        if found and at <= found[-1][1]:
            found[-1][1] = at + longest_s
        else:
            found.append([at, at + longest_s])
    return tuple((since, until) for since, until in found)
