"""Laws of the scheduler, on random traffic."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from triparty.cloud.serving.scheduler import Limits, Schedule, Slice, WaitingStep
from triparty.common.errors import SettingsError

LIMITS = st.builds(
    Limits,
    batch_rows=st.integers(2, 12),
    chunk_rows=st.integers(1, 12),
    short_rows=st.integers(1, 4),
)
ARRIVAL = st.tuples(st.sampled_from("abcd"), st.integers(1, 20))
TRAFFIC = st.lists(
    st.tuples(st.lists(ARRIVAL, max_size=5), st.sets(st.integers(0, 30), max_size=2)),
    max_size=12,
)


@given(
    LIMITS,
    st.lists(
        st.tuples(st.sampled_from("abcd"), st.integers(1, 20), st.booleans()), max_size=20
    ),
)
def test_steps_alone_are_whole_and_take_turns_with_all_others(
    limits: Limits, arrivals: list[tuple[str, int, bool]]
) -> None:
    steps = {n: WaitingStep(n, *arrival) for n, arrival in enumerate(arrivals)}
    schedule, done = Schedule().with_steps(steps.values()), Counter[int]()
    was_alone = False
    while schedule:
        waits = [steps[each.number] for each in schedule.waiting]
        before = schedule
        batch, schedule = schedule.next_batch(limits)
        is_alone = any(steps[part.number].alone for part in batch)
        if is_alone:
            (part,) = batch
            assert part.rows == steps[part.number].rows  # never cut, whatever the limits
        if all(any(step.alone is kind for step in waits) for kind in (True, False)):
            assert is_alone is not was_alone  # nobody waits for two of the other kind
        assert {part.number for part in batch} <= {step.number for step in before.waiting}
        was_alone = is_alone
        for part in batch:
            done[part.number] += part.rows
    assert done == {number: step.rows for number, step in steps.items()}


def test_who_reads_much_does_not_hold_up_who_reads_little() -> None:
    texts = [WaitingStep(n, "a", 900, alone=True) for n in range(5)]
    schedule = Schedule().with_steps([*texts, WaitingStep(5, "b", 10, alone=True)])
    schedule = schedule.with_steps([WaitingStep(6, "c", 1)])
    order = []
    while schedule:
        batch, schedule = schedule.next_batch(Limits())
        order += [part.number for part in batch]
    assert order == [0, 6, 5, 1, 2, 3, 4]


@given(LIMITS, TRAFFIC)
def test_every_row_runs_once_in_order_within_the_bounds(
    limits: Limits, traffic: list[tuple[list[tuple[str, int]], set[int]]]
) -> None:
    schedule, done = Schedule(), Counter[int]()
    asked: dict[int, int] = {}
    cancelled: set[int] = set()
    rounds = iter(traffic)
    while True:
        arrivals, cancels = next(rounds, ([], set()))
        steps = [WaitingStep(len(asked) + n, p, r) for n, (p, r) in enumerate(arrivals)]
        asked |= {step.number: step.rows for step in steps}
        schedule = schedule.with_steps(steps).without(cancels)
        cancelled |= cancels & set(asked)
        batch, schedule = schedule.next_batch(limits)
        if not batch:
            break
        numbers = [part.number for part in batch]
        assert len(set(numbers)) == len(numbers)
        assert 0 < sum(part.rows for part in batch) <= limits.batch_rows
        assert all(part.rows > 0 for part in batch)
        assert not set(numbers) & cancelled
        for part in batch:
            done[part.number] += part.rows
    if not list(rounds):
        assert not schedule
    for number, rows in asked.items():
        if number in cancelled or number in {step.number for step in schedule.waiting}:
            assert done[number] <= rows
        else:
            assert done[number] == rows


@given(LIMITS, st.integers(1, 20), st.data())
def test_no_principal_is_starved(limits: Limits, rows: int, data: st.DataObject) -> None:
    others = "bcdef"
    schedule = Schedule().with_steps([WaitingStep(0, "victim", rows)])
    number, ran = 0, 0
    bound = (len(others) + 1) * (rows + 2)
    for _ in range(bound):
        steps = []
        for name in data.draw(st.lists(st.sampled_from(others), max_size=8)):
            number += 1
            steps.append(WaitingStep(number, name, data.draw(st.integers(1, 20))))
        batch, schedule = schedule.with_steps(steps).next_batch(limits)
        ran += sum(part.rows for part in batch if part.number == 0)
        if ran == rows:
            return
    pytest.fail(f"{ran} of {rows} rows after {bound} batches")


def test_a_principal_with_many_sessions_gets_no_more_than_its_turn() -> None:
    many = [WaitingStep(n, "many", 1) for n in range(50)]
    schedule = Schedule().with_steps([*many, WaitingStep(50, "one", 1)])
    batch, _ = schedule.next_batch(Limits(batch_rows=2))
    assert [part.number for part in batch] == [0, 50]


def test_a_long_prompt_does_not_stall_decoders() -> None:
    limits = Limits(batch_rows=64, chunk_rows=16, short_rows=4)
    schedule = Schedule().with_steps([WaitingStep(0, "prompt", 40)])
    chunks = []
    for number in range(1, 4):
        schedule = schedule.with_steps([WaitingStep(number, "decoder", 1)])
        batch, schedule = schedule.next_batch(limits)
        assert Slice(number, 1) in batch
        chunks += [part.rows for part in batch if part.number == 0]
    assert chunks == [16, 16, 8]


def test_decoders_do_not_crowd_a_prompt_out() -> None:
    limits = Limits(batch_rows=8, chunk_rows=4)
    decoders = [WaitingStep(n, f"p{n}", 1) for n in range(1, 30)]
    schedule = Schedule().with_steps([WaitingStep(0, "prompt", 40), *decoders])
    batch, _ = schedule.next_batch(limits)
    assert Slice(0, 4) in batch
    assert sum(part.rows for part in batch) == 8


def test_512_sessions_of_mixed_length_all_end_in_turn() -> None:
    """Eight principals with 1 to 256 sessions each: nobody waits for the sessions of others."""
    limits = Limits(batch_rows=256, chunk_rows=64)
    counts = {"a": 1, "b": 3, "c": 8, "d": 20, "e": 32, "f": 64, "g": 128, "h": 256}
    owners = [name for name, count in counts.items() for _ in range(count)]
    lengths = [(1, 1, 1, 700)[number % 4] for number in range(512)]
    steps = [WaitingStep(n, owners[n], lengths[n]) for n in range(512)]
    schedule, ended = Schedule().with_steps(steps), dict[int, int]()
    left, at = dict(enumerate(lengths)), 0
    while schedule:
        batch, schedule = schedule.next_batch(limits)
        assert sum(part.rows for part in batch) <= limits.batch_rows
        long = [part for part in batch if lengths[part.number] > limits.short_rows]
        finishing = [part for part in long if left[part.number] <= limits.short_rows]
        assert sum(part.rows for part in long if part not in finishing) <= limits.chunk_rows
        for part in batch:
            left[part.number] -= part.rows
            if not left[part.number]:
                ended[part.number] = at
        at += 1
    assert len(ended) == 512
    rows = sum(lengths)
    # As many passes as the rows of prompts need, and not one decoder waited for them.
    assert at <= rows / limits.chunk_rows + 16
    short = [ended[n] for n in range(512) if lengths[n] == 1]
    assert max(short) <= 2
    last = {name: max(ended[n] for n in range(512) if owners[n] == name) for name in counts}
    # Who has few sessions is served before who has many, whatever the numbers of the others.
    assert last["a"] <= last["b"] <= last["c"] <= last["d"] <= last["e"] <= last["h"]
    prompts_of_c = sum(lengths[n] for n in range(512) if owners[n] == "c" and lengths[n] > 1)
    assert last["c"] <= len(counts) * prompts_of_c / limits.chunk_rows + len(counts)


def test_prompts_of_different_principals_alternate() -> None:
    limits = Limits(batch_rows=64, chunk_rows=16)
    schedule = Schedule().with_steps(
        [WaitingStep(0, "a", 32), WaitingStep(1, "a", 32), WaitingStep(2, "b", 32)]
    )
    order = []
    while schedule:
        batch, schedule = schedule.next_batch(limits)
        order += [part.number for part in batch]
    assert order == [0, 2, 0, 2, 1, 1]


def test_all_decoders_of_a_roomy_batch_run_at_once() -> None:
    steps = [WaitingStep(n, f"p{n % 3}", 1) for n in range(30)]
    batch, left = Schedule().with_steps(steps).next_batch(Limits())
    assert {part.number for part in batch} == set(range(30))
    assert not left


def test_an_empty_schedule_has_an_empty_batch() -> None:
    assert Schedule().next_batch(Limits()) == ((), Schedule())


@pytest.mark.parametrize("sizes", [(1, 1, 1), (2, 0, 1), (2, 1, 0)])
def test_limits_that_would_starve_are_refused(sizes: tuple[int, int, int]) -> None:
    with pytest.raises(SettingsError):
        Limits(*sizes)


@given(st.integers(2, 12), TRAFFIC)
def test_whole_steps_are_never_cut(
    room: int, traffic: list[tuple[list[tuple[str, int]], set[int]]]
) -> None:
    limits = Limits(batch_rows=room, whole=True)
    schedule, asked = Schedule(), dict[int, int]()
    done: list[int] = []
    cancelled: set[int] = set()
    rounds = iter(traffic)
    while True:
        arrivals, cancels = next(rounds, ([], set()))
        steps = [WaitingStep(len(asked) + n, p, r) for n, (p, r) in enumerate(arrivals)]
        asked |= {step.number: step.rows for step in steps}
        schedule = schedule.with_steps(steps).without(cancels)
        cancelled |= cancels & set(asked)
        batch, schedule = schedule.next_batch(limits)
        if not batch:
            break
        assert all(part.rows == asked[part.number] for part in batch)
        assert len(batch) == 1 or sum(part.rows for part in batch) <= room
        done += [part.number for part in batch]
    assert len(done) == len(set(done))
    left = {step.number for step in schedule.waiting}
    assert set(done) | left | cancelled == set(asked)
    if not list(rounds):
        assert not left


def test_who_sends_many_whole_steps_gets_no_more_than_its_turn() -> None:
    limits = Limits(batch_rows=6, whole=True)
    steps = [WaitingStep(n, "greedy", 2) for n in range(50)]
    schedule = Schedule().with_steps([*steps, WaitingStep(50, "modest", 2)])
    first, schedule = schedule.next_batch(limits)
    assert 50 in {part.number for part in first}
    second, _ = schedule.next_batch(limits)
    assert len(second) == 3


def test_a_whole_step_that_does_not_fit_waits_for_a_batch_of_its_own() -> None:
    limits = Limits(batch_rows=4, whole=True)
    rows = {"a": 3, "b": 9, "c": 1}
    steps = [WaitingStep(n, who, rows[who]) for n, who in enumerate("abc")]
    schedule, batches = Schedule().with_steps(steps), []
    while schedule:
        batch, schedule = schedule.next_batch(limits)
        batches.append({part.number: part.rows for part in batch})
    assert batches == [{0: 3}, {1: 9}, {2: 1}]
