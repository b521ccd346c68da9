"""What a round decides, as pure functions: arrivals and offers as columns, who may be chosen.

The loop around them (`gateway.py`) has the threads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from triparty.device.gate.optimizer import Leftover, choose
from triparty.device.gate.policies import POLICIES
from triparty.device.gate.policy import Arrivals, Feedback, Offers, Policy, Rows
from triparty.device.streams.closure import Closures
from triparty.device.streams.packets import Entry, Packet
from triparty.device.streams.reachability import Closure

MOST_BESIDE = 16
"""Frames of one closure that stages look at beside its target's."""


@dataclass(frozen=True, eq=False)
class Batch:
    """The packets of one stream that arrived in a round.

    Attributes:
        row: of the stream in the policy.
        packets: in decode order.
        own_ms: CPU ms that decoding each of them alone is expected to take.
        closures: of the stream; knows the packets already.
        waited_s: since the last look; of equal offers the one that waited longer is taken.
        may_offer: whether one of them may be chosen now: nothing else of the stream is being
            decoded.
    """

    row: int
    packets: Sequence[Packet]
    own_ms: Sequence[float]
    closures: Closures
    waited_s: float = 0.0
    may_offer: bool = True


@dataclass(frozen=True, eq=False)
class Picked:
    """What a round decodes of one stream.

    Attributes:
        batch: place in the round's batches.
        closure: to be decoded.
        cost_ms: that it is expected to take; that of a part of a closure is invested.
    """

    batch: int
    closure: Closure
    cost_ms: float


def arrivals(batches: Sequence[Batch]) -> Arrivals:
    """The packets of a round as columns, in the order of the batches."""
    packets = [packet for batch in batches for packet in batch.packets]
    pictures = [packet.picture for packet in packets]
    qp = [np.nan if picture.slice_qp is None else picture.slice_qp for picture in pictures]
    counts = [len(batch.packets) for batch in batches]
    rows = np.array([batch.row for batch in batches], dtype=np.int64)
    return Arrivals(
        stream=np.repeat(rows, counts),
        time=np.array([packet.time for packet in packets], dtype=np.float64),
        size=np.array([packet.size for packet in packets], dtype=np.float64),
        type=np.array([picture.type for picture in pictures], dtype=np.int8),
        reference=np.array([picture.reference for picture in pictures], dtype=np.bool_),
        entry=np.array([picture.entry != Entry.NONE for picture in pictures], dtype=np.bool_),
        slice_qp=np.array(qp, dtype=np.float64),
    )


def offers(
    now: float,
    batches: Sequence[Batch],
    seen: Arrivals,
    most_ms: float,
    budget_ms: float = np.nan,
) -> tuple[Offers, list[int]]:
    """The newest packet of each stream that can be decoded, with what that takes.

    Args:
        now: seconds since the loop began.
        batches: of the round.
        seen: their columns.
        most_ms: what takes longer is not offered: it waits for the next entry. So much can be
            saved up.
        budget_ms: so much is there.

    Returns:
        The offers, and the batch of each.
    """
    places, of_batch = list[int](), list[int]()
    costs, own_costs = list[float](), list[float]()
    first = 0
    for index, batch in enumerate(batches):
        if batch.may_offer:
            for place in reversed(range(len(batch.packets))):
                cost = batch.closures.cost(batch.packets[place].number)
                if cost is not None:
                    if cost <= most_ms:
                        places.append(first + place)
                        costs.append(cost)
                        own_costs.append(batch.own_ms[place])
                        of_batch.append(index)
                    break
        first += len(batch.packets)
    at = np.array(places, dtype=np.int64)
    return (
        Offers(
            now=now,
            arrivals=at,
            stream=seen.stream[at],
            cost=np.array(costs, dtype=np.float64),
            own_cost=np.array(own_costs, dtype=np.float64),
            entry=seen.entry[at],
            reference=seen.reference[at],
            saved=budget_ms / most_ms,
        ),
        of_batch,
    )


def decide(
    policy: Policy,
    leftover: str,
    now: float,
    batches: Sequence[Batch],
    *,
    budget_ms: float,
    most_ms: float,
) -> list[Picked]:
    """One round: what is decoded of the packets that arrived.

    Args:
        policy: sees the packets, values the offers, and hears what was chosen.
        leftover: see `optimizer.choose`.
        now: seconds since the loop began.
        batches: of the round.
        budget_ms: what may be spent in this round.
        most_ms: see `offers`.
    """
    seen = arrivals(batches)
    policy.see(seen)
    offered, of_batch = offers(now, batches, seen, most_ms, budget_ms)
    if not of_batch or budget_ms <= 0:
        policy.chosen(offered, np.array([], dtype=np.int64))
        return []
    value = policy.value(seen, offered)
    waited = np.array([batches[index].waited_s for index in of_batch], dtype=np.float64)
    choice = choose(value, offered.cost, budget_ms, staleness=waited, leftover=leftover)
    picked, picks = list[Picked](), list[int]()
    for pick in choice.picks:
        number = _packet(batches, of_batch[pick], int(offered.arrivals[pick])).number
        closure = batches[of_batch[pick]].closures.closure(number)
        if isinstance(closure, Closure):
            picked.append(Picked(of_batch[pick], closure, float(offered.cost[pick])))
            picks.append(int(pick))
    policy.chosen(offered, np.array(picks, dtype=np.int64))
    if choice.invested is not None:
        index = of_batch[choice.invested]
        number = _packet(batches, index, int(offered.arrivals[choice.invested])).number
        begun = batches[index].closures.beginning(number, choice.leftover)
        if begun is not None:
            picked.append(Picked(index, *begun))
    return picked


def shown_beside(closure: Closure, per_second: float) -> frozenset[int]:
    """Which frames of a closure stages look at beside its target's: a few, spread in time.

    Args:
        closure: with its target.
        per_second: most of them, in presentation time.

    Returns:
        Numbers of packets; the last ones in presentation order.
    """
    kept = list[Packet]()
    latest = closure.target.time
    packets = [p for p in closure.packets[:-1] if p.picture.shown and p.time < latest]
    for packet in sorted(packets, key=lambda packet: -packet.time):
        if latest - packet.time >= 1 / per_second - 1e-6:
            kept.append(packet)
            latest = packet.time
    return frozenset(packet.number for packet in kept[:MOST_BESIDE])


def leftover_of(policy: str, leftover: Leftover | None = None) -> Leftover:
    """How a policy, by name, treats what does not fit into the budget.

    Args:
        policy: of the registry.
        leftover: to be used in the place of the policy's own.
    """
    return leftover or POLICIES[policy].leftover


@dataclass(frozen=True)
class Judged:
    """The rewards of one frame.

    Attributes:
        row: of the stream in the policy.
        time: of the frame.
        rewards: one a task.
        selected: whether the gate chose the frame.
    """

    row: int
    time: float
    rewards: Sequence[float]
    selected: bool


def feedback(now: float, judged: Sequence[Judged]) -> Feedback:
    """The rewards of frames as columns.

    Args:
        now: seconds since the loop began.
        judged: at least one.
    """
    rows: Rows = np.array([each.row for each in judged], dtype=np.int64)
    return Feedback(
        now=now,
        stream=rows,
        time=np.array([each.time for each in judged], dtype=np.float64),
        reward=np.array([list(each.rewards) for each in judged], dtype=np.float64),
        selected=np.array([each.selected for each in judged], dtype=np.bool_),
    )


def _packet(batches: Sequence[Batch], index: int, place: int) -> Packet:
    before = sum(len(batch.packets) for batch in batches[:index])
    return batches[index].packets[place - before]
