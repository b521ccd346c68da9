"""The parameter sets of a stream, in force until another of the same number arrives."""

from __future__ import annotations

from triparty.common.errors import PacketError

MAX_SIZE = 4096  # bytes; real ones stay below 200


class Sets:
    """Which units of parameter sets have been read, so that repetitions cost nothing."""

    def __init__(self) -> None:
        """Nothing has been read."""
        self._units: dict[tuple[int, int], bytes] = {}

    def is_new(self, unit: bytes) -> bool:
        """Whether a unit differs from all that are in force.

        Raises:
            PacketError: it is larger than a parameter set ever is.
        """
        if len(unit) > MAX_SIZE:
            raise PacketError(f"a parameter set of {len(unit)} bytes, above {MAX_SIZE}")
        return unit not in self._units.values()

    def put(self, kind: int, number: int, unit: bytes) -> None:
        """Keeps the unit that is now in force for a kind and number."""
        self._units[kind, number] = unit


def at_most(number: int, limit: int, name: str) -> int:
    """A field that a standard bounds.

    Raises:
        PacketError: it is above its bound.
    """
    if number > limit:
        raise PacketError(f"{name} is {number}, above {limit}: the header is damaged")
    return number
