"""Every packet gets a unique stamp and a time that goes on."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from triparty.device.streams.timeline import Timeline

TICK_S = 1 / 90_000


def test_stamps_of_the_stream_are_kept() -> None:
    timeline = Timeline(TICK_S, 5.0)
    stamps = [(7200, 0), (14400, 3600), (10800, 7200)]
    placed = [timeline.place(pts, dts, entry=n == 0) for n, (pts, dts) in enumerate(stamps)]
    assert [stamp for stamp, _ in placed] == [7200, 14400, 10800]
    assert [time for _, time in placed] == pytest.approx([5.0, 5.08, 5.04])


def test_a_first_packet_without_a_stamp_stands_before_the_second() -> None:
    timeline = Timeline(TICK_S, 0.0)
    first, _ = timeline.place(None, None, entry=True)
    second, at = timeline.place(0, -10800, entry=False)
    third, earlier = timeline.place(-7200, -7200, entry=False)
    assert len({first, second, third}) == 3
    assert 0 < earlier < at


def test_a_stream_without_stamps_counts_steps() -> None:
    timeline = Timeline(1 / 1_200_000, 0.0)
    times = [timeline.place(None, None, entry=n == 0)[1] for n in range(5)]
    assert times == pytest.approx([0, 0.04, 0.08, 0.12, 0.16])


@pytest.mark.parametrize("jump", [-(10**9), 10**9])
def test_a_clock_that_was_set_does_not_move_time(jump: int) -> None:
    timeline = Timeline(TICK_S, 0.0)
    for n in range(10):
        timeline.place(3600 * n, 3600 * n, entry=n == 0)
    stamp, time = timeline.place(36000 + jump, 36000 + jump, entry=False)
    assert stamp == 36000 + jump
    assert time == pytest.approx(0.4)
    assert timeline.place(39600 + jump, None, entry=False)[1] == pytest.approx(0.44)
    assert timeline.jumps == 1


@given(st.lists(st.one_of(st.none(), st.integers(-50, 50)), max_size=60))
def test_stamps_are_unique_between_two_entries(pts: list[int | None]) -> None:
    timeline = Timeline(0.04, 0.0)
    placed = [timeline.place(each, None, entry=n == 0)[0] for n, each in enumerate(pts)]
    assert len(set(placed)) == len(placed)
