"""The fast replay comes to what a slow one comes to, object by object and frame by frame."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from made_traces import DEEP, FREE_B, INTRA, ONLY_P, PYRAMID, Group, made_trace
from slow_replay import SlowReplay

from triparty.common.errors import SettingsError, TraceError
from triparty.device.gate import policies
from triparty.device.gate.fleet import Streams, Tables, spread, tables
from triparty.device.gate.policy import Arrivals, Column, Feedback, Offers, Policy
from triparty.device.gate.replay import Replay, Settings
from triparty.device.gate.traces import Trace
from triparty.device.streams.packets import Entry

GROUPS = {"only-p": ONLY_P, "free-b": FREE_B, "pyramid": PYRAMID, "deep": DEEP, "intra": INTRA}


class Draw:
    """Wants random offers; writes down all that it is told."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.rows = 0
        self.told: list[tuple[object, ...]] = []

    def join(self, count: int) -> np.ndarray:
        self.rows += count
        return np.arange(self.rows - count, self.rows)

    def leave(self, stream: int) -> None:
        self.told.append(("leave", stream))

    def see(self, arrivals: Arrivals) -> None:
        self.told += sorted(
            ("see", row, round(time, 6), size)
            for row, time, size in zip(
                arrivals.stream.tolist(),
                arrivals.time.tolist(),
                arrivals.size.tolist(),
                strict=True,
            )
        )

    def value(self, arrivals: Arrivals, offers: Offers) -> Column:
        drawn = self.rng.random(self.rows)[offers.stream]
        self.told += [
            ("offer", row, round(cost, 6), round(own, 6), bool(entry))
            for row, cost, own, entry in zip(
                offers.stream.tolist(),
                offers.cost.tolist(),
                offers.own_cost.tolist(),
                offers.entry.tolist(),
                strict=True,
            )
        ]
        return np.where(drawn > 0.4, drawn, -np.inf)

    def chosen(self, offers: Offers, picks: np.ndarray) -> None:
        self.told.append(("chosen", *sorted(offers.stream[picks].tolist())))

    def learn(self, feedback: Feedback) -> None:
        self.told += sorted(
            ("learn", row, round(time, 6), bool(selected), *np.nan_to_num(reward, nan=9))
            for row, time, selected, reward in zip(
                feedback.stream.tolist(),
                feedback.time.tolist(),
                feedback.selected.tolist(),
                feedback.reward.tolist(),
                strict=True,
            )
        )


def compare(known: Tables, streams: Streams, settings: Settings, seed: int = 3) -> None:
    fast_policy, slow_policy = Draw(seed), Draw(seed)
    fast = Replay(known, streams, fast_policy, settings).run()
    slow = SlowReplay(known, streams, slow_policy, settings).run()
    assert fast_policy.told == slow_policy.told
    assert fast.decode_ms == pytest.approx(slow.decode_ms)
    assert fast.full_decode_ms == pytest.approx(slow.full_decode_ms)
    assert fast.max_staleness_s == pytest.approx(slow.max_staleness_s)
    assert (fast.decoded, fast.targets) == (slow.decoded, slow.targets)
    assert fast.targets > 0
    for one in fast.accuracy:
        per_stream = one.per_stream[~np.isnan(one.per_stream)]
        expected = slow.accuracy[one.task, one.tolerance_s]
        np.testing.assert_allclose(per_stream, expected, atol=1e-12)
        assert one.value == pytest.approx(np.mean(expected))


@pytest.mark.parametrize("dependencies", [True, False])
@pytest.mark.parametrize("group", GROUPS)
def test_fast_and_slow_replay_agree(group: str, dependencies: bool) -> None:
    known = tables(
        [made_trace(GROUPS[group], groups=6, seed=s, fps=f) for s, f in ((0, 25), (1, 10))]
    )
    settings = Settings(
        seconds=4.0,
        budget_ms=2.0,
        observe_dependencies=dependencies,
        tolerances=(0.0, 0.3, 1.0),
    )
    compare(known, spread(known, 5, seed=1), settings)


def test_they_agree_on_groups_of_all_kinds_at_once() -> None:
    traces = [
        made_trace(group, groups=4, seed=seed, fps=fps)
        for seed, (group, fps) in enumerate(
            [(ONLY_P, 60.0), (FREE_B, 25.0), (PYRAMID, 12.5), (INTRA, 5.0)]
        )
    ]
    known = tables(traces)
    compare(known, spread(known, 7, seed=2), Settings(seconds=3.0, budget_ms=1.0))


def test_they_agree_while_streams_come_and_go() -> None:
    known = tables([made_trace(PYRAMID, groups=5, seed=4), made_trace(ONLY_P, seed=5)])
    streams = spread(known, 6, seed=3)
    streams = replace(
        streams,
        joins=np.array([0.0, 0.0, 0.5, 1.0, 2.0, 0.0]),
        leaves=np.array([np.inf, 1.5, 2.5, np.inf, 2.4, 0.2]),
    )
    compare(known, streams, Settings(seconds=3.0, budget_ms=1.5))


def test_they_agree_where_closures_exceed_a_second_of_budget() -> None:
    known = tables([made_trace(ONLY_P, groups=4), made_trace(DEEP, groups=4)])
    settings = Settings(seconds=4.0, budget_ms=0.08, leftover="paper")
    compare(known, spread(known, 3, seed=1), settings)


def opened(trace: Trace) -> Trace:
    """The trace with every second entry open, and the pictures after it that precede it."""
    packets = trace.packets
    entry, leading = packets.entry.copy(), packets.leading.copy()
    starts = np.flatnonzero(entry)
    for number, start in enumerate(starts):
        if number % 2:
            entry[start] = Entry.OPEN
            stop = starts[number + 1] if number + 1 < len(starts) else len(entry)
            after = np.arange(start + 1, stop)
            leading[after[packets.pts[after] < packets.pts[start]]] = True
    return replace(trace, packets=replace(packets, entry=entry, leading=leading))


OPEN: Group = (
    (3, "I", True),
    (1, "B", True),
    (0, "B", False),
    (2, "B", False),
    (5, "P", True),
    (4, "B", False),
)


@pytest.mark.parametrize("seed", range(4))
def test_they_agree_on_open_groups(seed: int) -> None:
    known = tables([opened(made_trace(OPEN, groups=6, seed=seed))])
    assert known.leading.any()
    settings = Settings(seconds=4.0, budget_ms=3.0)
    compare(known, spread(known, 4, seed=seed), settings, seed=seed)


class All(Draw):
    """Wants everything."""

    def value(self, arrivals: Arrivals, offers: Offers) -> Column:
        return np.ones(len(offers.stream))


@pytest.mark.parametrize("group", GROUPS)
def test_who_decodes_all_is_always_right_and_pays_for_all(group: str) -> None:
    known = tables([made_trace(GROUPS[group], groups=6)])
    settings = Settings(seconds=3.0, budget_ms=math.inf, warm_up_s=1.0)
    streams = spread(known, 3, seed=0)
    streams = replace(streams, offset=np.zeros(3, np.int64))
    score = Replay(known, streams, All(0), settings).run()
    assert {one.value for one in score.accuracy} == {1.0}
    assert score.decode_ms == pytest.approx(score.full_decode_ms)
    assert score.decoded == score.packets


def test_who_decodes_nothing_is_never_right() -> None:
    class Nothing(Draw):
        def value(self, arrivals: Arrivals, offers: Offers) -> Column:
            return np.full(len(offers.stream), -np.inf)

    known = tables([made_trace()])
    score = Replay(known, spread(known, 3, 0), Nothing(0), Settings(2.0, 5.0)).run()
    assert {one.value for one in score.accuracy} == {0.0}
    assert score.decode_ms == 0
    assert score.max_staleness_s == pytest.approx(2.0)


@pytest.mark.parametrize(
    "name",
    [name for name, one in policies.POLICIES.items() if not one.learns and name != "oracle"],
)
def test_every_policy_keeps_the_budget(name: str) -> None:
    known = tables([made_trace(PYRAMID, groups=5, seed=1), made_trace(ONLY_P, seed=2)])
    exact = replace(known, estimate=known.cost, estimate_before=known.cost_before)
    settings = Settings(seconds=6.0, budget_ms=0.8, leftover=policies.POLICIES[name].leftover)
    score = Replay(exact, spread(exact, 6, 1), policies.make(name), settings).run()
    slack = 1.0 if settings.leftover != "paper" else 1.5
    assert 0 < score.decode_ms <= slack * settings.budget_ms * score.rounds + 1e-6
    assert score.worst_second <= slack * 2 + 1e-6  # a second's saving and a second's budget


def test_a_chain_is_invested_in_with_what_is_left() -> None:
    known = tables([made_trace(ONLY_P, groups=6)])
    scores = {
        leftover: Replay(
            known, spread(known, 3, 0), All(0), Settings(3.0, 0.9, leftover=leftover)
        ).run()
        for leftover in ("stop", "prefix")
    }
    assert scores["prefix"].decode_ms > scores["stop"].decode_ms
    assert scores["prefix"].decode_ms <= 0.9 * 75 * 1.1


def test_what_cannot_be_replayed_says_so() -> None:
    with pytest.raises(TraceError, match="no trace"):
        tables([])
    with pytest.raises(SettingsError, match="budget_ms"):
        Settings(seconds=1.0, budget_ms=0.0)
    with pytest.raises(SettingsError, match="warm-up"):
        Settings(seconds=1.0, budget_ms=1.0, warm_up_s=1.0)


def test_replays_repeat() -> None:
    known = tables([made_trace(PYRAMID, groups=6)])
    scores = [
        Replay(known, spread(known, 4, 5), make(), Settings(3.0, 1.0)).run()
        for make in (lambda: policies.make("random", seed=1),) * 2
    ]
    assert scores[0].decode_ms == scores[1].decode_ms
    assert [a.value for a in scores[0].accuracy] == [a.value for a in scores[1].accuracy]


_: Policy = Draw(0)
