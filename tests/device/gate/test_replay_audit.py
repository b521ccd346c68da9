"""Audits of a replay: what is true is counted as by hand, and what they say is near it."""

from __future__ import annotations

import numpy as np
import pytest
from made_traces import DEEP, FREE_B, ONLY_P, PYRAMID, made_trace

from triparty.common.errors import SettingsError
from triparty.device.gate.fleet import Streams, Tables, spread, tables
from triparty.device.gate.policies import make
from triparty.device.gate.recall import Estimate
from triparty.device.gate.replay import Replay, Settings
from triparty.device.gate.replay_audit import check_audits
from triparty.device.gate.scoring import Looks, Score, scored_frames
from triparty.device.gate.states import UNKNOWN

WARM_UP_S = 0.0  # so that some groups begin before anything is held
GROUPS = {"only-p": ONLY_P, "free-b": FREE_B, "pyramid": PYRAMID, "deep": DEEP}


def played(
    known: Tables,
    streams: Streams,
    share: float,
    seconds: float = 4.0,
    seed: int = 0,
    budget_ms: float = 1.0,
) -> tuple[Score, Looks]:
    settings = Settings(
        seconds=seconds,
        budget_ms=budget_ms,
        warm_up_s=WARM_UP_S,
        audit_share=share,
        audit_seed=seed,
    )
    replay = Replay(known, streams, make("round_robin"), settings)
    return replay.run(), replay._looks


def by_hand(
    known: Tables, streams: Streams, looks: Looks, task: int, seconds: float
) -> tuple[int, list[int]]:
    """Groups, and over all of them: frames, right ones, changes, caught ones."""
    counts, groups = np.zeros(4, int), 0
    columns = list(zip(*(one.tolist() for one in looks.columns()), strict=True))
    bounds = scored_frames(known, streams, WARM_UP_S, seconds)
    for stream in range(len(streams)):
        trace = int(streams.trace[stream])
        rows = np.arange(known.base[trace], known.base[trace + 1])
        frames = sorted(rows[known.target[rows]], key=lambda row: known.rank[row])
        mine = [one for one in columns if one[0] == stream]
        whole: list[list[int]] = []
        for count in range(bounds[0][stream], bounds[1][stream] + 1):
            if known.entry[frames[count % len(frames)]]:
                whole.append([])
            if whole:
                whole[-1].append(count)
        for group in whole[:-1]:
            groups += 1
            truth = [int(known.state[frames[count % len(frames)], task]) for count in group]
            counts += _found(group, truth, mine, known, task)
    return groups, counts.tolist()


def _found(
    group: list[int],
    truth: list[int],
    looks: list[tuple[int, int, int, int]],
    known: Tables,
    task: int,
) -> np.ndarray:
    answered = [
        (shown, effective, int(known.state[row, task]))
        for _, row, shown, effective in looks
        if known.state[row, task] != UNKNOWN
    ]
    right = 0
    for count, state in zip(group, truth, strict=True):
        held = [(shown, answer) for shown, effective, answer in answered if effective <= count]
        right += bool(held) and max(held)[1] == state != UNKNOWN
    begins = [n for n in range(1, len(group)) if truth[n] != truth[n - 1]]
    ends = [*begins[1:], len(group)] if begins else []
    seen = {shown for shown, _, _ in answered}
    caught = sum(
        any(count in seen for count in group[begin:end])
        for begin, end in zip(begins, ends, strict=True)
    )
    return np.array([len(group), right, len(begins), caught])


@pytest.mark.parametrize("group", GROUPS)
def test_what_is_true_is_counted_as_by_hand(group: str) -> None:
    known = tables(
        [made_trace(GROUPS[group], groups=5, seed=s, fps=f) for s, f in ((0, 25), (1, 10))]
    )
    streams = spread(known, 5, seed=1)
    score, looks = played(known, streams, 1.0, budget_ms=0.2)
    assert len(score.audits) == len(known.tasks)
    for task, found in enumerate(score.audits):
        groups, counts = by_hand(known, streams, looks, task, score.seconds)
        pictures, right, changes, caught = counts
        assert found.groups == found.audited == groups > 5
        assert 0 < found.true_accuracy == right / pictures < 1
        assert 0 < found.true_recall == caught / changes < 1
        for estimate, true in (
            (found.accuracy, found.true_accuracy),
            (found.recall, found.true_recall),
        ):
            assert estimate.share == pytest.approx(true)
            assert estimate.low == estimate.share == estimate.high


def test_audits_of_few_groups_hold_the_truth_and_change_nothing() -> None:
    known = tables([made_trace(ONLY_P, groups=40, seed=seed) for seed in range(3)])
    streams = spread(known, 20, seed=1)
    plain, _ = played(known, streams, 0.0, 12.0, budget_ms=4.0)
    assert plain.audits == ()
    inside = {"accuracy": 0, "recall": 0}
    score, looks = played(known, streams, 0.05, 12.0, seed=7, budget_ms=4.0)
    assert score.decode_ms == plain.decode_ms
    assert score.accuracy[0].value == plain.accuracy[0].value
    bounds = {"warm_up_s": WARM_UP_S, "seconds": score.seconds}
    assert score.audits == check_audits(looks, share=0.05, seed=7, **bounds)
    trials = 40
    for seed in range(trials):
        found = check_audits(looks, share=0.05, seed=seed, **bounds)[0]
        assert found.audited == pytest.approx(0.05 * found.groups, rel=0.6)
        assert found.audited_ms == pytest.approx(0.05 * score.full_decode_ms, rel=0.6)
        for name in inside:
            estimate: Estimate = getattr(found, name)
            assert 0 < estimate.high - estimate.low < 0.5
            inside[name] += estimate.low <= getattr(found, f"true_{name}") <= estimate.high
    assert min(inside.values()) >= 0.8 * trials


def test_a_share_of_groups_is_a_share() -> None:
    for share in (-0.1, 1.1):
        with pytest.raises(SettingsError, match="0 to 1"):
            Settings(seconds=1.0, budget_ms=1.0, audit_share=share)
