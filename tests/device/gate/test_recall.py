"""The audit: groups by a coin within a budget of its own, and estimates without bias."""

from __future__ import annotations

import math

import numpy as np
import pytest

from triparty.common.errors import SettingsError
from triparty.device.gate.recall import AuditedGroup, AuditSchedule, accuracy, recall

STREAMS, GROUP = 200, 20


def audited(
    share: float, rounds: int = 2000, seed: int = 0
) -> tuple[AuditSchedule, np.ndarray, float, float]:
    """Who was audited in each round, what it cost, what was granted."""
    schedule = AuditSchedule(share=share, seed=seed)
    schedule.grow(STREAMS)
    rows = np.arange(STREAMS)
    phase = np.random.default_rng(1).integers(GROUP, size=STREAMS)
    looked, spent = np.zeros((rounds, STREAMS), bool), 0.0
    for number in range(rounds):
        entry = (number + phase) % GROUP == 0
        cost = np.where(entry, 10.0, 1.0) * np.where(rows % 2, 1.0, 4.0)
        picked = schedule.packets(rows, entry, cost, budget_ms=float(cost.sum()) / 4)
        looked[number, picked] = True
        spent += float(cost[picked].sum())
    granted = share * rounds * float(np.where(rows % 2, 1.0, 4.0).sum()) * 29 / GROUP / 4
    return schedule, looked, spent, granted


def test_audits_keep_their_own_small_budget() -> None:
    _, looked, spent, granted = audited(0.02)
    assert looked.any()
    assert 0.7 * granted < spent < 1.3 * granted
    assert not audited(0.0)[1].any()


def test_groups_are_audited_whole() -> None:
    _, looked, _, _ = audited(0.02)
    phase = np.random.default_rng(1).integers(GROUP, size=STREAMS)
    for row in range(STREAMS):
        first = (-phase[row]) % GROUP
        whole = looked[first : first + (len(looked) - first) // GROUP * GROUP, row]
        groups = whole.reshape(-1, GROUP)
        assert (groups.all(axis=1) | ~groups.any(axis=1)).all()
        assert not looked[:first, row].any()  # of a group whose beginning was not seen


def test_dear_and_cheap_streams_are_audited_alike() -> None:
    _, looked, _, _ = audited(0.05, rounds=6000)
    dear, cheap = looked[:, ::2].mean(), looked[:, 1::2].mean()
    assert dear == pytest.approx(cheap, rel=0.35)


def world(rng: np.random.Generator, groups: int) -> list[tuple[int, int, int, int]]:
    """Pictures, right, changes and caught of each group; busy groups are worse gated."""
    made = []
    for _ in range(groups):
        pictures = int(rng.integers(10, 60))
        busy = rng.random() < 0.3
        right = int(rng.binomial(pictures, 0.6 if busy else 0.98))
        changes = int(rng.poisson(3.0 if busy else 0.1))
        made.append((pictures, right, changes, int(rng.binomial(changes, 0.7))))
    return made


def test_estimates_are_unbiased_and_their_intervals_hold_the_truth() -> None:
    rng = np.random.default_rng(0)
    everything = world(rng, 3000)
    pictures, right, changes, caught = (sum(column) for column in zip(*everything, strict=True))
    truth = {accuracy: right / pictures, recall: caught / changes}
    # Unequal probabilities, as when the audit's budget is behind.
    chances = rng.choice([0.02, 0.1], len(everything))
    inside = {accuracy: 0, recall: 0}
    shares: dict[object, list[float]] = {accuracy: [], recall: []}
    trials = 300
    for _ in range(trials):
        picked = np.flatnonzero(rng.random(len(everything)) < chances)
        found = [AuditedGroup(float(chances[g]), *everything[g]) for g in picked]
        for measure in (accuracy, recall):
            estimate = measure(found)
            shares[measure].append(estimate.share)
            inside[measure] += estimate.low <= truth[measure] <= estimate.high
    for measure, share in truth.items():
        assert np.mean(shares[measure]) == pytest.approx(share, abs=0.01)
        assert inside[measure] / trials > 0.9


def test_looking_where_the_gate_looks_would_be_biased() -> None:
    """Negative control: groups picked because they are busy say too little is right."""
    rng = np.random.default_rng(0)
    everything = world(rng, 3000)
    share = sum(group[1] for group in everything) / sum(group[0] for group in everything)
    busy = [AuditedGroup(0.05, *group) for group in everything if group[2] > 1]
    assert accuracy(busy).share < share - 0.1


def test_where_nothing_was_audited_nothing_is_known() -> None:
    nothing = recall([])
    assert math.isnan(nothing.share)
    assert (nothing.low, nothing.high) == (0.0, 1.0)
    quiet = recall([AuditedGroup(0.1, 20, 20, 0, 0)])
    assert math.isnan(quiet.share)
    everything = accuracy([AuditedGroup(1.0, 20, 15, 2, 1)])
    assert (everything.low, everything.share, everything.high) == (0.75, 0.75, 0.75)


def test_groups_that_all_say_the_same_do_not_make_sure() -> None:
    few, many = (accuracy([AuditedGroup(0.05, 20, 20, 0, 0)] * n) for n in (1, 100))
    assert (few.share, few.high) == (1.0, 1.0)
    assert few.low == pytest.approx(0.025)
    assert 0.95 < many.low < 0.97
    none = recall([AuditedGroup(0.05, 20, 10, 2, 0)] * 100)
    assert (none.low, none.share) == (0.0, 0.0)
    assert 0.03 < none.high < 0.05


def test_what_cannot_be_counted_is_refused() -> None:
    for wrong in ((0.0, 1, 1, 0, 0), (0.5, 1, 2, 0, 0), (0.5, 1, 1, 1, 2)):
        with pytest.raises(SettingsError):
            AuditedGroup(*wrong)
    with pytest.raises(SettingsError, match="0 to 1"):
        AuditSchedule(share=1.5)
