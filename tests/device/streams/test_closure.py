"""Closures are exact, minimal and complete, on random streams against brute force."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from packet_graphs import (
    ArithmeticDecoder,
    entry,
    full_decode,
    leading,
    packet,
    rubbish,
    silent_pictures,
    slotted,
    slotted_entry,
    slotted_pictures,
    trailing,
)

from triparty.device.streams.closure import Closures
from triparty.device.streams.packets import Entry, Packet, Picture
from triparty.device.streams.reachability import Bound, Closure, Unreachable

PICTURES = st.one_of(silent_pictures(), slotted_pictures())
# At each packet: how far back the wanted one is, or nothing is wanted.
WANTS = st.lists(st.sampled_from([None, None, 0, 0, 0, 1, 2, 3, 7]), min_size=40, max_size=40)
MISSING = st.sets(st.integers(0, 39), max_size=3)


class Player:
    """A stream that is gated: feeds closures to an arithmetic decoder."""

    def __init__(self, closures: Closures | None = None) -> None:
        self.closures = closures or Closures()
        self.decoder = ArithmeticDecoder()
        self.pixels: dict[int, object] = {}
        self.position = -1

    def want(self, number: int) -> Closure | Unreachable:
        answer = self.closures.closure(number)
        if isinstance(answer, Closure):
            self.play(answer)
        return answer

    def play(self, closure: Closure) -> None:
        if closure.restart:
            self.decoder.restart()
        for one in closure:
            self.pixels[one.number] = self.decoder.feed(one)
        self.position = closure.target.number
        self.closures.decoded([one.number for one in closure])


def _packets(pictures: list[Picture]) -> list[Packet]:
    return [packet(n, picture, size=50 + 7 * n) for n, picture in enumerate(pictures)]


def _play(pictures: list[Picture], wants: list[int | None], missing: set[int]) -> Player:
    player = Player()
    for one in _packets(pictures):
        if one.number in missing:
            continue
        player.closures.add(one, cost=1.0 + one.number)
        want = wants[one.number]
        if want is not None:
            player.want(one.number - want)
    return player


@given(PICTURES, WANTS, MISSING)
@settings(max_examples=200)
def test_what_is_decoded_is_exact(
    pictures: list[Picture], wants: list[int | None], missing: set[int]
) -> None:
    exact = full_decode(_packets(pictures), sorted(missing))
    player = _play(pictures, wants, missing)
    assert {n: exact.get(n) for n in player.pixels} == player.pixels


@given(PICTURES, WANTS, MISSING)
@settings(max_examples=150)
def test_every_packet_of_a_closure_is_needed(
    pictures: list[Picture], wants: list[int | None], missing: set[int]
) -> None:
    player = Player()
    for one in _packets(pictures):
        if one.number in missing:
            continue
        player.closures.add(one)
        want = wants[one.number]
        answer = None if want is None else player.closures.closure(one.number - want)
        if not isinstance(answer, Closure):
            continue
        target = answer.target.number
        exact = _pixels_after(player.decoder, answer, answer.packets)
        for left_out in answer.packets[:-1]:
            fewer = tuple(other for other in answer if other is not left_out)
            assert _pixels_after(player.decoder, answer, fewer) != exact, (target, left_out)
        player.play(answer)


def _pixels_after(
    decoder: ArithmeticDecoder, closure: Closure, packets: tuple[Packet, ...]
) -> object:
    other = decoder.copy()
    if closure.restart:
        other.restart()
    return [other.feed(one) for one in packets][-1]


@given(PICTURES, WANTS, MISSING)
@settings(max_examples=200)
def test_what_is_refused_cannot_be_had(
    pictures: list[Picture], wants: list[int | None], missing: set[int]
) -> None:
    """Feeding all that the decoder has not passed, from anywhere, is not exact either."""
    every = _packets(pictures)
    exact = full_decode(every, sorted(missing))
    player = Player()
    for one in every:
        if one.number in missing:
            continue
        player.closures.add(one)
        want = wants[one.number]
        number = None if want is None else one.number - want
        if number is None or number < 0 or number in missing:
            continue
        answer = player.want(number)
        if isinstance(answer, Closure) or not every[number].picture.shown:
            continue
        if _older_than_two_entries(every, number, one.number, missing):
            continue
        fresh = [p for p in every if player.position < p.number <= number]
        fresh = [p for p in fresh if p.number not in missing]
        starts = [None, *[p.number for p in fresh if p.picture.entry]]
        for start in starts:
            decoder = player.decoder.copy() if start is None else ArithmeticDecoder()
            fed = [p for p in fresh if start is None or p.number >= start]
            pixels = {p.number: decoder.feed(p) for p in fed}
            is_had = number in pixels and pixels[number] == exact.get(number)
            assert not is_had, (number, answer, start)


def _older_than_two_entries(
    every: list[Packet], number: int, newest: int, missing: set[int]
) -> bool:
    after = [p for p in every if number < p.number <= newest and p.number not in missing]
    return sum(bool(p.picture.entry) for p in after) >= 2


@given(PICTURES)
@settings(max_examples=200)
def test_whoever_decodes_everything_is_refused_nothing(pictures: list[Picture]) -> None:
    every = _packets(pictures)
    player = Player()
    for one in every:
        player.closures.add(one)
        answer = player.closures.closure(one.number)
        if answer is Unreachable.HIDDEN:
            answer = Closure((one,))
        if isinstance(answer, Closure):
            assert len(answer) == 1
            player.play(answer)
    assert player.pixels == full_decode(every)


@given(PICTURES, WANTS, MISSING)
@settings(max_examples=200)
def test_the_cost_of_a_closure_is_the_sum_of_its_packets(
    pictures: list[Picture], wants: list[int | None], missing: set[int]
) -> None:
    player = Player()
    for one in _packets(pictures):
        if one.number in missing:
            continue
        player.closures.add(one, cost=1.0 + one.number)
        for number in range(one.number + 1):
            answer = player.closures.closure(number)
            cost = player.closures.cost(number)
            if isinstance(answer, Closure):
                assert cost == pytest.approx(sum(1.0 + p.number for p in answer))
            else:
                assert cost is None
        want = wants[one.number]
        if want is not None:
            player.want(one.number - want)


@given(PICTURES, WANTS, MISSING, st.integers(1, 12), st.integers(50, 2500), st.booleans())
@settings(max_examples=150)
def test_what_is_held_stays_within_the_bound(
    pictures: list[Picture],
    wants: list[int | None],
    missing: set[int],
    packets: int,
    size: int,
    whole: bool,
) -> None:
    exact = full_decode(_packets(pictures), sorted(missing))
    closures = Closures(Bound(packets=packets, size=size))
    if whole:
        closures.decode_whole()
    player = Player(closures)
    for one in _packets(pictures):
        if one.number in missing:
            continue
        closures.add(one)
        assert closures.held_packets <= packets
        assert closures.held_bytes <= size
        held = [n for n in range(one.number + 1) if n in closures._held]
        assert closures.held_packets == len(held)
        assert closures.held_bytes == sum(50 + 7 * n for n in held)
        want = wants[one.number]
        if want is not None:
            player.want(one.number - want)
    if not whole:
        assert {n: exact.get(n) for n in player.pixels} == player.pixels
    elif closures.counters.evicted == 0 and player.pixels:
        arrived = [n for n in range(len(pictures)) if n not in missing]
        assert sorted(player.pixels) == [n for n in arrived if n <= max(player.pixels)]


@given(PICTURES, WANTS, st.sets(st.integers(0, 39), max_size=4), st.booleans())
@settings(max_examples=150)
def test_after_failures_what_is_decoded_is_exact(
    pictures: list[Picture], wants: list[int | None], broken: set[int], is_late: bool
) -> None:
    """A decoder that fails holds rubbish, and is heard at once, or after the next packet."""
    exact = full_decode(_packets(pictures))
    player = Player()
    failed: list[int] = []
    for one in _packets(pictures):
        player.closures.add(one)
        while failed:
            player.closures.failed(failed.pop())
        want = wants[one.number]
        answer = None if want is None else player.closures.closure(one.number - want)
        if not isinstance(answer, Closure):
            continue
        bad = [other for other in answer.packets if other.number in broken]
        if not bad:
            player.play(answer)
            continue
        fine = answer.packets[: answer.packets.index(bad[0])]
        if fine:
            player.play(Closure(fine, answer.restart))
        player.decoder = rubbish()
        failed.append(bad[0].number)
        if is_late:
            player.closures.decoded([other.number for other in answer])
        else:
            player.closures.failed(failed.pop())
    assert {n: exact.get(n) for n in player.pixels} == player.pixels


def _of(*pictures: Picture) -> Closures:
    closures = Closures()
    for number, picture in enumerate(pictures):
        closures.add(packet(number, picture))
    return closures


def _numbers(answer: Closure | Unreachable) -> list[int]:
    assert isinstance(answer, Closure), answer
    return [one.number for one in answer]


def test_a_group_of_b_pictures() -> None:
    closures = _of(entry(), trailing(), trailing(False), trailing(False), trailing())
    assert _numbers(closures.closure(2)) == [0, 1, 2]
    assert _numbers(closures.closure(4)) == [0, 1, 4]
    closures.decoded([0, 1, 4])
    assert closures.closure(2) is Unreachable.PASSED
    assert closures.held_packets == 0


def test_nothing_before_the_first_entry() -> None:
    closures = _of(trailing(), trailing(), entry(), trailing())
    assert closures.closure(1) is Unreachable.NO_ENTRY
    assert _numbers(closures.closure(3)) == [2, 3]
    assert closures.closure(4) is Unreachable.UNKNOWN


def test_starting_at_an_open_entry_withholds_its_leading_pictures() -> None:
    closures = _of(entry(), trailing(), entry(Entry.OPEN), leading(), trailing())
    answer = closures.closure(4)
    assert _numbers(answer) == [2, 4]
    assert isinstance(answer, Closure)
    assert answer.restart
    assert _numbers(closures.closure(3)) == [0, 1, 2, 3]
    closures.decoded([2])
    assert closures.closure(3) is Unreachable.LEADING


def test_going_on_through_an_open_entry_keeps_its_leading_pictures() -> None:
    closures = _of(entry(), trailing())
    closures.decoded([0, 1])
    for number, picture in enumerate([entry(Entry.OPEN), leading(), trailing()], start=2):
        closures.add(packet(number, picture))
    answer = closures.closure(3)
    assert _numbers(answer) == [2, 3]
    assert isinstance(answer, Closure)
    assert not answer.restart


def test_a_gap_is_final_until_the_next_entry() -> None:
    closures = _of(entry(), trailing())
    closures.add(packet(3, trailing()))
    assert closures.closure(3) is Unreachable.LOST
    assert _numbers(closures.closure(1)) == [0, 1]
    closures.add(packet(4, entry(Entry.OPEN)))
    closures.add(packet(5, leading()))
    assert closures.closure(5) is Unreachable.LEADING
    assert _numbers(closures.closure(4)) == [4]
    assert closures.counters.gaps == 1


def test_a_failure_is_final_until_the_next_entry() -> None:
    closures = _of(entry(), trailing(), trailing())
    closures.failed(1)
    assert closures.closure(2) is Unreachable.FAILED
    closures.add(packet(3, trailing()))
    assert closures.closure(3) is Unreachable.FAILED
    closures.add(packet(4, entry()))
    answer = closures.closure(4)
    assert _numbers(answer) == [4]
    assert isinstance(answer, Closure)
    assert answer.restart


def test_a_failure_before_an_open_entry_that_already_came() -> None:
    closures = _of(entry(), trailing(False), entry(Entry.OPEN), leading(), trailing())
    closures.decoded([0])
    closures.failed(1)
    closures.add(packet(5, leading()))
    assert closures.closure(3) is Unreachable.LEADING
    assert closures.closure(5) is Unreachable.LEADING
    answer = closures.closure(4)
    assert isinstance(answer, Closure)
    assert answer.restart


def test_a_reference_that_was_passed_over_spoils_what_reads_it() -> None:
    closures = _of(slotted_entry(), slotted(1, 1), slotted(2, 2), slotted(2, 0))
    assert _numbers(closures.closure(3)) == [0, 2, 3]
    closures.decoded([0, 2, 3])
    closures.add(packet(4, slotted(1, 4)))  # reads what packet 1 wrote
    closures.add(packet(5, slotted(4, 0)))
    closures.add(packet(6, slotted(2, 1)))  # writes over it
    closures.add(packet(7, slotted(1, 0)))
    assert closures.closure(4) is Unreachable.SKIPPED
    assert closures.closure(5) is Unreachable.SKIPPED
    assert _numbers(closures.closure(7)) == [6, 7]


def test_a_hidden_picture_is_no_target() -> None:
    closures = _of(slotted_entry(), slotted(1, 1, shown=False), slotted(1, 0))
    assert closures.closure(1) is Unreachable.HIDDEN
    assert _numbers(closures.closure(2)) == [0, 1, 2]


def test_at_the_bound_a_group_is_given_up_until_the_next_entry() -> None:
    closures = Closures(Bound(packets=3))
    for number, picture in enumerate([entry(), trailing(False), trailing(), trailing()]):
        closures.add(packet(number, picture))
    assert closures.closure(1) is Unreachable.EVICTED  # nobody needs it
    assert _numbers(closures.closure(3)) == [0, 2, 3]
    closures.add(packet(4, trailing()))
    assert closures.closure(4) is Unreachable.EVICTED
    assert closures.held_packets == 0
    closures.add(packet(5, trailing()))
    assert closures.closure(5) is Unreachable.EVICTED
    closures.add(packet(6, entry()))
    assert _numbers(closures.closure(6)) == [6]
    assert (closures.counters.overflows, closures.counters.evicted) == (2, 5)


def test_a_stream_that_cannot_be_gated_is_decoded_whole() -> None:
    closures = _of(entry(), trailing(False), entry(), trailing(False))
    closures.decode_whole()
    assert _numbers(closures.closure(3)) == [0, 1, 2, 3]
    closures.decoded([0, 1, 2, 3])
    closures.add(packet(4, entry()))
    closures.add(packet(6, trailing(False)))  # after a gap it goes on
    assert _numbers(closures.closure(6)) == [4, 6]
    closures.failed(4)
    assert _numbers(closures.closure(6)) == [6]


def test_a_stream_that_is_decoded_whole_goes_on_after_the_bound() -> None:
    closures = Closures(Bound(packets=3))
    closures.decode_whole()
    for number in range(5):
        closures.add(packet(number, trailing()))
    assert _numbers(closures.closure(4)) == [4]
    assert closures.closure(3) is Unreachable.EVICTED


def test_a_picture_is_past_when_two_entries_followed_it() -> None:
    closures = _of(entry(), trailing(), entry(), trailing())
    assert _numbers(closures.closure(1)) == [0, 1]
    closures.add(packet(4, entry()))
    assert closures.closure(1) is Unreachable.PASSED
    assert _numbers(closures.closure(3)) == [2, 3]
    assert closures.held_packets == 3


def test_leading_pictures_may_need_a_reference_that_was_passed_over() -> None:
    closures = _of(slotted_entry(), slotted(1, 1), slotted(2, 2))
    closures.decoded([0, 2])
    for number, picture in enumerate([entry(Entry.OPEN), leading()], start=3):
        closures.add(packet(number, picture))
    assert closures.closure(4) is Unreachable.LEADING
    answer = closures.closure(3)
    assert isinstance(answer, Closure)
    assert answer.restart


def test_the_cost_of_two_branches_counts_both() -> None:
    closures = Closures()
    pictures = [slotted_entry(), slotted(1, 1), slotted(2, 2), slotted(3, 0)]
    for number, picture in enumerate(pictures):
        closures.add(packet(number, picture), cost=10.0**number)
    assert closures.cost(3) == 1111.0
    closures.decoded([0, 1])
    assert closures.cost(3) == 1100.0


def test_numbers_may_grow_for_ever_while_something_is_held() -> None:
    closures = _of(entry())
    closures.decoded([0])
    for number in range(1, 5000):
        closures.add(packet(number, trailing()))
        assert _numbers(closures.closure(number))[-1] == number
        if number > 2:
            closures.decoded([number - 2])
    assert closures.held_packets == 2
    assert max(held.closure.bit_length() for held in closures._held.values()) < 1100
