"""Whose job is next: nobody waits behind another's many jobs. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Turn:
    """A job that waits or runs.

    Attributes:
        number: rises with every job.
        principal: the device that asked.
        developer: to whom the device belongs.
    """

    number: int
    principal: str
    developer: str


def next_turn(
    waiting: Sequence[Turn], running: Sequence[Turn], used_ms: Mapping[str, int]
) -> Turn | None:
    """The job to run next; None if none waits.

    It is of the developer who has fewest running, then of one whose devices have used least
    CPU time today; among the devices of that developer the same; then the oldest.

    Args:
        waiting: any order.
        running: now.
        used_ms: CPU time today, by principal; none is 0.
    """
    both = [*waiting, *running]
    devices = {turn.principal: turn.developer for turn in both}
    used_by: dict[str, int] = {}
    for principal, developer in devices.items():
        used_by[developer] = used_by.get(developer, 0) + used_ms.get(principal, 0)

    def rank(turn: Turn) -> tuple[int, ...]:
        return (
            sum(other.developer == turn.developer for other in running),
            used_by[turn.developer],
            sum(other.principal == turn.principal for other in running),
            used_ms.get(turn.principal, 0),
            turn.number,
        )

    return min(waiting, key=rank, default=None)
