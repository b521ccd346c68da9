"""Durations fall into buckets, sums of them too; names are counted up to a bound."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from triparty.cloud.serving.durations import BOUNDS_S, NONE, Durations
from triparty.cloud.serving.usage import OTHERS, Usage, Used

SOME = st.lists(st.floats(0, 100), max_size=20)


@given(SOME, SOME)
def test_a_sum_is_the_durations_of_both(one: list[float], two: list[float]) -> None:
    both = Durations.of(*one) + Durations.of(*two)
    assert both.counts == Durations.of(*one, *two).counts
    assert abs(both.sum_s - sum(one) - sum(two)) < 1e-6
    assert both.count == len(one) + len(two)
    assert both + NONE == both


@given(SOME)
def test_each_bound_counts_what_is_at_most_that(some: list[float]) -> None:
    told = dict(Durations.of(*some).cumulative())
    assert told.pop("+Inf") == len(some)
    assert told == {str(bound): sum(one <= bound for one in some) for bound in BOUNDS_S}


@given(st.integers(0, 4), st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(1, 9))))
def test_names_are_bounded_and_nothing_is_lost(most: int, used: list[tuple[str, int]]) -> None:
    usage = Usage(most)
    for name, rows in used:
        usage.count(name, rows=rows)
    read = usage.read()
    first = list(dict.fromkeys(name for name, _ in used))[:most]
    assert set(read) - {OTHERS} == set(first)
    for name in first:
        mine = [rows for each, rows in used if each == name]
        assert read[name] == Used(sum(mine), len(mine))
    total = sum(rows for _, rows in used)
    assert sum(each.rows for each in read.values()) == (total if most else 0)
