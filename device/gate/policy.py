"""The seam between a round's loop and whatever ranks packets: `Policy`.

A round is a tick of the wall clock (40 ms by default). The loop, live or replayed, does:

1. `see` all packets that arrived since the round before;
2. `value` the offers: the newest packet of each stream that has one;
3. let the optimizer choose offers by value and closure cost under the budget;
4. tell the policy what was `chosen`;
5. `learn` from feedback whenever it comes, by stream and presentation time.

All columns of a round are arrays over packets or streams, so that a thousand streams cost a few
vectorised calls. A stream is its row in the policy's state, given by `join`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.int64]
Column = NDArray[np.float64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Arrivals:
    """The packets of one round, n of them, in decode order within each stream.

    Attributes:
        stream: (n,) row of the stream.
        time: (n,) presentation time in seconds.
        size: (n,) bytes.
        type: (n,) `PictureType`.
        reference: (n,) whether others may refer to it.
        entry: (n,) whether decoding may start there.
        slice_qp: (n,) quantiser of the first slice, NaN where unknown.
    """

    stream: Rows
    time: Column
    size: Column
    type: NDArray[np.int8]
    reference: Flags
    entry: Flags
    slice_qp: Column


@dataclass(frozen=True, slots=True)
class Offers:
    """What may be decoded in this round: at most one target per stream, m of them.

    Attributes:
        now: seconds since the loop began.
        arrivals: (m,) the place of each target in the round's `Arrivals`.
        stream: (m,) row of the stream.
        cost: (m,) CPU ms of the closure: the target and what must be decoded before it.
        own_cost: (m,) CPU ms of the target alone.
        entry: (m,) whether the target is an entry.
        reference: (m,) whether others may refer to the target.
        saved: how much is there of what can be saved up for decoding, from 0 to 1, before
            this round spends; NaN where nobody says.
    """

    now: float
    arrivals: Rows
    stream: Rows
    cost: Column
    own_cost: Column
    entry: Flags
    reference: Flags
    saved: float = math.nan


@dataclass(frozen=True, slots=True)
class Feedback:
    """What decoded frames turned out to be worth, n of them; late ones are welcome.

    Attributes:
        now: seconds since the loop began.
        stream: (n,) row of the stream.
        time: (n,) presentation time of the frame, in seconds.
        reward: (n, tasks) 1 where the frame was necessary, 0 where it was redundant
            (thesis 2.4.1), NaN where a task did not look.
        selected: (n,) whether the frame was a target; the others were decoded as dependencies.
    """

    now: float
    stream: Rows
    time: Column
    reward: Column
    selected: Flags


class Policy(Protocol):
    """Ranks the offers of a round; knows nothing of decoders, budgets or clocks."""

    def join(self, count: int) -> Rows:
        """Adds streams and returns their rows; rows of streams that left are used again."""

    def leave(self, stream: int) -> None:
        """Forgets a stream."""

    def see(self, arrivals: Arrivals) -> None:
        """Takes in the packets of a round, chosen or not."""

    def value(self, arrivals: Arrivals, offers: Offers) -> Column:
        """The value of each offer, (m,), at least 0; -inf for what must not be chosen."""

    def chosen(self, offers: Offers, picks: Rows) -> None:
        """Hears which offers (indices into `offers`) will be decoded."""

    def learn(self, feedback: Feedback) -> None:
        """Takes in feedback, in any order and however late."""
