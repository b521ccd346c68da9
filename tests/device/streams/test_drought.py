"""When a stream is given up for want of entries, and when it must not be."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from packet_graphs import entry, packet, silent_pictures, trailing

from triparty.device.streams.closure import Closures
from triparty.device.streams.drought import Drought
from triparty.device.streams.packets import Entry, Picture
from triparty.device.streams.reachability import Bound, Unreachable

PATIENCE_S = 1.0  # 25 packets


def given_up_at(
    pictures: list[Picture],
    *,
    packets: int = 1500,
    missing: frozenset[int] = frozenset(),
    size: int = 100,
) -> int | None:
    """The packet from which on the stream is decoded whole, by the bound of held packets."""
    closures, drought = Closures(Bound(packets=packets)), Drought(PATIENCE_S)
    for number, picture in enumerate(pictures):
        if number in missing:
            continue
        here = packet(number, picture, size)
        if drought.add(here, closures) is not None:
            return number
        closures.add(here)
    return None


def test_a_group_that_outgrows_the_bound_is_given_up_before_it_is_lost() -> None:
    assert given_up_at([entry()] + [trailing()] * 99, packets=40) == 40


def test_a_long_group_that_is_held_is_gated() -> None:
    assert given_up_at([entry()] + [trailing()] * 249) is None


def test_a_group_that_outgrows_the_bound_before_the_patience_waits_for_its_entry() -> None:
    pictures = ([entry()] + [trailing()] * 19) * 5
    assert given_up_at(pictures, packets=10) is None


def test_pictures_that_nobody_needs_do_not_outgrow_it() -> None:
    assert given_up_at([entry()] + [trailing(reference=False)] * 99, packets=40) is None


def test_the_group_before_does_not_outgrow_it() -> None:
    assert (
        given_up_at([entry()] + [trailing()] * 29 + [entry()] + [trailing()] * 29, packets=40)
        is None
    )


def test_nothing_but_an_entry_ends_the_wait_at_the_start() -> None:
    assert given_up_at([trailing()] * 60) == 25
    assert given_up_at([trailing()] * 24 + [entry()] + [trailing()] * 30) is None


def test_after_a_gap_the_wait_begins_anew() -> None:
    pictures = [entry()] + [trailing()] * 99
    assert given_up_at(pictures, missing=frozenset([50])) == 51 + 26


def test_an_entry_that_is_regular_is_waited_for() -> None:
    pictures = ([entry()] + [trailing()] * 29) * 3 + [trailing()] * 100
    assert given_up_at(pictures, missing=frozenset([62])) == 63 + 61  # twice 30 packets
    assert given_up_at(pictures[:90] + pictures[:30], missing=frozenset([62])) is None


@settings(max_examples=60)
@given(silent_pictures(), st.integers(1, 8), st.integers(1, 900))
def test_the_bound_is_foretold(pictures: list[Picture], packets: int, size: int) -> None:
    closures = Closures(Bound(packets=packets, size=size))
    for number, picture in enumerate(pictures):
        here = packet(number, picture)
        waited = closures.waiting
        foretold = closures.outgrown_by(here)
        closures.add(here)
        if picture.entry:
            assert not foretold
        elif waited is None and foretold is not (closures.waiting is Unreachable.EVICTED):
            assert foretold
            assert isinstance(closures.closure(number), Unreachable), "it is not held itself"


@pytest.mark.parametrize("whole", [True, False])
def test_a_stream_that_is_decoded_whole_outgrows_nothing(whole: bool) -> None:
    closures = Closures(Bound(packets=2))
    for number, picture in enumerate([entry(), trailing()]):
        closures.add(packet(number, picture))
    if whole:
        closures.decode_whole()
    assert closures.outgrown_by(packet(2, trailing())) is not whole


@pytest.mark.parametrize("passed_over", [True, False])
def test_a_backlog_starts_anew_where_decoding_did_not_go_on(passed_over: bool) -> None:
    closures = Closures()
    pictures = [entry(), trailing(), entry(Entry.OPEN), trailing(), trailing()]
    for number, picture in enumerate(pictures):
        closures.add(packet(number, picture))
        if number == 0 or (number == 1 and not passed_over):
            closures.decoded([number])
    assert closures.backlog() is None  # it is gated
    if passed_over:
        closures.failed(1)
    closures.decode_whole()
    backlog = closures.backlog()
    assert backlog is not None
    assert [one.number for one in backlog] == [2, 3, 4]
    assert backlog.restart is passed_over
    closures.decoded([2, 3, 4])
    assert closures.backlog() is None
