"""A round's decisions, without a thread: what is offered, and what is taken of it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from triparty.device.gate.policies import make
from triparty.device.gate.policy import Arrivals, Column, Feedback, Offers, Rows
from triparty.device.gateway.rounds import Batch, Judged, arrivals, decide, feedback, offers
from triparty.device.streams.closure import Closures
from triparty.device.streams.packets import Entry, Packet, Picture, PictureType


def packet(number: int, kind: str, *, shown: bool = True) -> Packet:
    picture = Picture(
        PictureType[kind],
        reference=kind != "B",
        entry=Entry.CLEAN if kind == "I" else Entry.NONE,
        slice_qp=30 if kind == "I" else None,
        shown=shown,
    )
    return Packet(number, 100 + number, number, number / 25, number / 25, picture)


def batch(row: int, kinds: str, *, new: int, cost: float = 1.0, **more: object) -> Batch:
    """A stream of pictures of which the last `new` arrived in this round."""
    closures = Closures()
    packets = [packet(number, kind) for number, kind in enumerate(kinds)]
    for each in packets:
        closures.add(each, cost)
    return Batch(row, packets[-new:], [cost] * new, closures, **more)  # type: ignore[arg-type]


class Ranked:
    """A policy that values offers by the row of their stream, and remembers."""

    def __init__(self) -> None:
        self.seen: list[Arrivals] = []
        self.took: list[list[int]] = []

    def join(self, count: int) -> Rows:
        return np.arange(count)

    def leave(self, stream: int) -> None:
        pass

    def see(self, arrivals: Arrivals) -> None:
        self.seen.append(arrivals)

    def value(self, arrivals: Arrivals, offers: Offers) -> Column:
        return offers.stream + 1.0

    def chosen(self, offers: Offers, picks: Rows) -> None:
        self.took.append(offers.stream[picks].tolist())

    def learn(self, feedback: Feedback) -> None:
        pass


def taken(
    batches: Sequence[Batch], budget_ms: float, most_ms: float = 100
) -> dict[int, list[int]]:
    picked = decide(Ranked(), "scan", 0.0, batches, budget_ms=budget_ms, most_ms=most_ms)
    return {batches[pick.batch].row: [each.number for each in pick.closure] for pick in picked}


def test_arrivals_are_columns_in_order() -> None:
    columns = arrivals([batch(4, "IPP", new=2), batch(2, "I", new=1)])
    assert columns.stream.tolist() == [4, 4, 2]
    assert columns.size.tolist() == [101, 102, 100]
    assert columns.entry.tolist() == [False, False, True]
    assert columns.slice_qp.tolist()[2] == 30
    assert np.isnan(columns.slice_qp[:2]).all()


def test_the_newest_packet_of_each_stream_is_offered_with_its_chain() -> None:
    batches = [batch(4, "IPPP", new=2), batch(2, "IB", new=1), batch(3, "I", new=1)]
    offered, of_batch = offers(0.0, batches, arrivals(batches), 100)
    assert offered.stream.tolist() == [4, 2, 3]
    assert offered.arrivals.tolist() == [1, 2, 3]
    assert offered.cost.tolist() == [4, 2, 1]
    assert offered.own_cost.tolist() == [1, 1, 1]
    assert offered.reference.tolist() == [True, False, True]
    assert of_batch == [0, 1, 2]


def test_what_cannot_be_decoded_is_not_offered() -> None:
    closures = Closures()
    for number, kind in enumerate("PP"):
        closures.add(packet(number, kind), 1.0)
    lost = Batch(0, [packet(0, "P"), packet(1, "P")], [1.0, 1.0], closures)
    busy = batch(1, "IP", new=1, may_offer=False)
    dear = batch(2, "IPPPPPPPP", new=1)
    batches = [lost, busy, dear]
    offered, _ = offers(0.0, batches, arrivals(batches), most_ms=8.5)
    assert offered.stream.tolist() == []
    assert offers(0.0, batches, arrivals(batches), most_ms=9)[0].stream.tolist() == [2]


def test_a_picture_that_yields_no_frame_gives_way_to_the_one_before() -> None:
    closures = Closures()
    packets = [packet(0, "I"), packet(1, "P", shown=False)]
    for each in packets:
        closures.add(each, 1.0)
    batches = [Batch(0, packets, [1.0, 1.0], closures)]
    assert taken(batches, 100) == {0: [0]}


def test_a_round_takes_what_fits_and_the_policy_hears_of_it() -> None:
    batches = [batch(row, "IPP", new=1) for row in range(4)]
    policy = Ranked()
    decide(policy, "scan", 0.0, batches, budget_ms=6.5, most_ms=100)
    assert policy.took == [[3, 2]]
    assert len(policy.seen) == 1


@pytest.mark.parametrize("budget_ms", [0.0, 2.9])
def test_without_budget_nothing_is_taken_but_all_is_seen(budget_ms: float) -> None:
    policy = Ranked()
    batches = [batch(0, "IPP", new=3)]
    assert decide(policy, "scan", 0.0, batches, budget_ms=budget_ms, most_ms=100) == []
    assert policy.took == [[]]
    assert len(policy.seen[0].stream) == 3


def test_an_empty_round_is_no_error() -> None:
    for name in ("round_robin", "feedback_only", "random"):
        policy = make(name)
        assert decide(policy, "scan", 0.0, [], budget_ms=1, most_ms=1) == []


def test_of_equal_offers_the_one_that_waited_longer_is_taken() -> None:
    batches = [batch(0, "I", new=1, waited_s=w) for w in (1.0, 3.0, 2.0)]
    picked = decide(Ranked(), "scan", 0.0, batches, budget_ms=1.5, most_ms=100)
    assert [pick.batch for pick in picked] == [1]


def test_rewards_become_columns() -> None:
    columns = feedback(9.0, [Judged(3, 1.5, [1, np.nan], True), Judged(1, 2.5, [0, 1], False)])
    assert columns.stream.tolist() == [3, 1]
    assert columns.time.tolist() == [1.5, 2.5]
    assert columns.reward.shape == (2, 2)
    assert columns.selected.tolist() == [True, False]


def test_what_is_left_is_invested_in_the_chain_that_did_not_fit() -> None:
    batches = [batch(0, "IPPPP", new=1), batch(1, "IPPPPPPP", new=1)]
    policy = Ranked()
    picked = decide(policy, "prefix", 0.0, batches, budget_ms=11.5, most_ms=100)
    assert [(pick.batch, len(pick.closure), pick.cost_ms) for pick in picked] == [
        (1, 8, 8.0),
        (0, 3, 3.0),
    ]
    assert [pick.closure.part for pick in picked] == [False, True]
    assert [each.number for each in picked[1].closure] == [0, 1, 2]
    assert policy.took == [[1]], "who is invested in was not chosen"
    batches[0].closures.decoded([0, 1, 2])
    assert batches[0].closures.cost(4) == 2.0
    for leftover in ("stop", "scan"):
        assert len(decide(Ranked(), leftover, 0.0, batches[1:], budget_ms=7, most_ms=9)) == 0


def test_the_policy_hears_how_much_is_saved_up() -> None:
    batches = [batch(0, "I", new=1)]
    assert offers(0.0, batches, arrivals(batches), 100.0, 40.0)[0].saved == 0.4
