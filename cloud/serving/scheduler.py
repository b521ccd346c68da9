"""Which waiting rows form the next batch: a pure value, no I/O, no model, no clock.

A *step* is the rows that one session sent in one request. A *batch* is what the model runs
at once: from each of several steps a *slice* of rows. Every decision is taken anew for every
batch (iteration-level scheduling, Yu et al., "Orca", OSDI 2022), so that sessions join and
leave between any two batches, and long steps are cut into chunks that travel beside the
decoders of others (Agrawal et al., "Sarathi-Serve", OSDI 2024), so that a long prompt costs
everybody a little instead of stalling them.

The rules:

1. A batch has at most `batch_rows` rows; at most one slice per step.
2. A step with at most `short_rows` rows left is *short* (a decoder), else *long* (a prompt).
   Short steps go first, but leave `chunk_rows` (or half the batch, if that is less) to the
   long ones when any waits; long ones together take at most `chunk_rows`.
3. Inside each class principals take turns: one step each per round, oldest first, in the
   order of a ring. Who was served goes to the end of the ring, newcomers too, so that
   nobody waits for more than one turn of everybody else, whatever the others send.
4. Where steps run *whole*, they are one class, each is one slice, and a batch ends before the
   first that does not fit; one that fits into no batch has one to itself.
5. A step that runs *alone* (a text that an encoder reads, which cannot be cut) is a batch by
   itself. While others wait too, such batches and theirs take turns; among those alone
   principals do, as in rule 3.

Laws: every row of every step that is not removed is in exactly one slice, in order; the
slices of one batch are of different steps; no principal is passed over for ever; between two
steps that run alone, all others that wait have a batch.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from triparty.common.errors import SettingsError

Ring = tuple[str, ...]


@dataclass(frozen=True)
class Limits:
    """How large a batch may be.

    Attributes:
        batch_rows: most rows in a batch, at least 2.
        chunk_rows: most rows of long steps in a batch. More is a faster first token for a
            prompt and a longer pause for everybody who decodes meanwhile.
        short_rows: most rows of a step that counts as decoding.
        whole: whether a step is never cut.
    """

    batch_rows: int = 8192
    chunk_rows: int = 512
    short_rows: int = 8
    whole: bool = False

    def __post_init__(self) -> None:
        """Refuses limits under which a class of steps would starve."""
        if self.batch_rows < 2 or self.chunk_rows < 1 or self.short_rows < 1:
            raise SettingsError(
                "a batch needs at least 2 rows, a chunk and a short step at least 1, "
                f"got {self.batch_rows}, {self.chunk_rows}, {self.short_rows}"
            )

    @property
    def reserved(self) -> int:
        """Rows that short steps leave to waiting long ones."""
        return min(self.chunk_rows, self.batch_rows // 2)


@dataclass(frozen=True)
class WaitingStep:
    """The part of a step that has not run yet.

    Attributes:
        number: identity of the step; rises with arrival.
        principal: whose turn it uses.
        rows: rows left, at least 1.
        alone: whether it is a batch by itself, and never cut.
    """

    number: int
    principal: str
    rows: int
    alone: bool = False

    def __post_init__(self) -> None:
        """Refuses a step without rows."""
        if self.rows < 1:
            raise ValueError(f"a waiting step has at least one row, got {self.rows}")


@dataclass(frozen=True)
class Slice:
    """The next `rows` rows of step `number`."""

    number: int
    rows: int


@dataclass(frozen=True)
class Schedule:
    """All waiting steps, and whose turn it is.

    Attributes:
        waiting: the steps in order of arrival.
        short: turn order of principals with short steps.
        long: turn order of principals with long steps.
        alone: turn order of principals with steps that run alone.
        others_next: whether the last batch was a step alone.
    """

    waiting: tuple[WaitingStep, ...] = ()
    short: Ring = ()
    long: Ring = ()
    alone: Ring = ()
    others_next: bool = False

    def __len__(self) -> int:
        """How many steps wait."""
        return len(self.waiting)

    def with_steps(self, steps: Iterable[WaitingStep]) -> Schedule:
        """The schedule after more steps arrived."""
        return replace(self, waiting=(*self.waiting, *steps))

    def without(self, numbers: Collection[int]) -> Schedule:
        """The schedule without the named steps: cancelled ones, or those of a failed batch."""
        return replace(
            self, waiting=tuple(step for step in self.waiting if step.number not in numbers)
        )

    def next_batch(self, limits: Limits) -> tuple[tuple[Slice, ...], Schedule]:
        """Takes the next batch.

        Returns:
            The slices of the batch (none exactly when no step waits), and the schedule of
            what is left.
        """
        if limits.whole:
            everybody = _Class.of(self.short, self.waiting)
            taken = tuple(everybody.take(limits.batch_rows, whole=True))
            return taken, replace(self._after(taken), short=everybody.next_ring())
        alone = [step for step in self.waiting if step.alone]
        others = [step for step in self.waiting if not step.alone]
        if alone and not (others and self.others_next):
            readers = _Class.of(self.alone, alone)
            taken = tuple(readers.take(1, whole=True))
            return taken, replace(
                self._after(taken), alone=readers.next_ring(), others_next=True
            )
        short = _Class.of(self.short, (s for s in others if s.rows <= limits.short_rows))
        long = _Class.of(self.long, (s for s in others if s.rows > limits.short_rows))
        room = limits.batch_rows
        first = short.take(room - limits.reserved if long.ring else room)
        room -= _rows(first)
        chunks = long.take(min(limits.chunk_rows, room))
        room -= _rows(chunks)
        taken = (*first, *chunks, *short.take(room))
        return taken, replace(
            self._after(taken),
            short=short.next_ring(),
            long=long.next_ring(),
            others_next=False,
        )

    def _after(self, taken: Iterable[Slice]) -> Schedule:
        """What is left; whose turn it is then is for the caller to say."""
        left = _left(self.waiting, {part.number: part.rows for part in taken})
        return replace(self, waiting=tuple(left))


class _Class:
    """The turns of one class of steps while a batch is put together."""

    def __init__(self, ring: Ring, queues: dict[str, deque[WaitingStep]]) -> None:
        self.ring = ring
        self._queues = queues
        self._order = deque(ring)
        self._served: dict[str, None] = {}

    @classmethod
    def of(cls, ring: Ring, steps: Iterable[WaitingStep]) -> _Class:
        """Keeps of the ring who still waits; newcomers join at its end."""
        queues: dict[str, deque[WaitingStep]] = {}
        for step in steps:
            queues.setdefault(step.principal, deque()).append(step)
        known = [principal for principal in ring if principal in queues]
        new = [principal for principal in queues if principal not in ring]
        return cls((*known, *new), queues)

    def take(self, room: int, *, whole: bool = False) -> list[Slice]:
        """Slices of at most `room` rows, one step a principal and round.

        If `whole`, none is cut: it ends before a step that does not fit, unless that is the
        first.
        """
        slices: list[Slice] = []
        while room > 0 and self._order:
            step = self._queues[self._order[0]][0]
            if whole and slices and step.rows > room:
                break
            principal = self._order.popleft()
            self._queues[principal].popleft()
            slices.append(Slice(step.number, step.rows if whole else min(step.rows, room)))
            room -= slices[-1].rows
            self._served[principal] = None
            if self._queues[principal]:
                self._order.append(principal)
        return slices

    def next_ring(self) -> Ring:
        """The turn order after this batch."""
        waiting = [principal for principal in self.ring if principal not in self._served]
        return (*waiting, *self._served)


def _rows(slices: Iterable[Slice]) -> int:
    return sum(part.rows for part in slices)


def _left(waiting: Iterable[WaitingStep], taken: Mapping[int, int]) -> Iterator[WaitingStep]:
    for step in waiting:
        rows = step.rows - taken.get(step.number, 0)
        if rows == step.rows:
            yield step
        elif rows > 0:
            yield replace(step, rows=rows)
