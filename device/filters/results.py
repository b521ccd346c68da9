"""What a filter answers in the place of a model that was not run: one type a reason.

A caller that counts, draws or reads results gets an empty one of the kind that it expects, and
can still tell it from one of the model.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Skipped:
    """The model was not run, because its result would be redundant.

    Attributes:
        task: whose result this stands for.
    """

    task: str


@dataclass(frozen=True)
class NothingDetected(Skipped):
    """No object: empty, with nothing to iterate over."""

    def __len__(self) -> int:
        """No objects."""
        return 0

    def __iter__(self) -> Iterator[Any]:
        """Over no objects."""
        return iter(())


@dataclass(frozen=True)
class ZeroCount(Skipped):
    """A count of zero."""

    def __int__(self) -> int:
        """Zero."""
        return 0

    def __index__(self) -> int:
        """Zero."""
        return 0


@dataclass(frozen=True)
class EmptyText(Skipped):
    """A text without words."""

    def __str__(self) -> str:
        """No words."""
        return ""


@dataclass(frozen=True)
class OtherClass(Skipped):
    """A class that was not asked for.

    Attributes:
        wanted: the classes that were.
    """

    wanted: tuple[str, ...] = ()


@dataclass(frozen=True)
class LowConfidence(Skipped):
    """A result too uncertain to be of use."""


@dataclass(frozen=True)
class OutOfBound(Skipped):
    """A number above the bound.

    Attributes:
        bound: that it is above.
    """

    bound: float = 0.0


@dataclass(frozen=True)
class Unchanged(Skipped):
    """The same result as the one before."""


@dataclass(frozen=True)
class Redundant(Skipped):
    """Redundant by a measure of the user's own."""
