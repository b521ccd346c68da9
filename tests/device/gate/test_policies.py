"""Policies in a small world with a known truth."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from synthetic_streams import FPS, Cameras, run

from triparty.common.errors import SettingsError
from triparty.device.gate.base import BasePolicy
from triparty.device.gate.bounded import Bounded
from triparty.device.gate.features import PUBLISHED, FeatureChoice
from triparty.device.gate.policies import POLICIES, make, matching
from triparty.device.gate.policy import Arrivals, Feedback, Offers
from triparty.device.gate.predictor import Network, Predictor, random_weights

CAMERAS = Cameras.made(40, 1500, seed=3)
_FIRST = (slice(400), slice(20))
FEW = Cameras(
    *(table[_FIRST] for table in (CAMERAS.size, CAMERAS.entry, CAMERAS.answer, CAMERAS.cost))
)


def published(seed: int = 0) -> Predictor:
    network = Network("published", FeatureChoice(PUBLISHED, 5, "paper"))
    return Predictor(network, random_weights(network, rng=np.random.default_rng(seed)))


def contextual(seed: int = 0) -> Predictor:
    network = Network("published", FeatureChoice(PUBLISHED[:2], 5, "paper"))
    return Predictor(network, random_weights(network, rng=np.random.default_rng(seed)))


def extended(seed: int = 0) -> Predictor:
    network = Network("extended", FeatureChoice())
    return Predictor(network, random_weights(network, rng=np.random.default_rng(seed)))


class Told:
    """The truth of `CAMERAS`."""

    def __init__(self, cameras: Cameras) -> None:
        self.answers = cameras.answer
        changes = np.diff(cameras.answer, axis=0, append=-1) != 0
        rounds = np.where(changes, np.arange(len(changes))[:, None], len(changes))
        self.until = np.minimum.accumulate(rounds[::-1], axis=0)[::-1]

    def answer(self, stream: np.ndarray, time: np.ndarray) -> np.ndarray:
        return self.answers[np.rint(time * FPS).astype(int), stream]

    def lasts(self, stream: np.ndarray, time: np.ndarray) -> np.ndarray:
        number = np.rint(time * FPS).astype(int)
        return (self.until[number, stream] + 1 - number) / FPS


def made(name: str, **options: object) -> object:
    gates = {"paper": published(), "contextual": contextual(), "ours": extended()}
    truth = Told(CAMERAS) if name == "oracle" else None
    return make(name, predictor=gates.get(name), truth=truth, **options)


@pytest.mark.parametrize("name", POLICIES)
def test_every_policy_keeps_its_budget_and_repeats_itself(name: str) -> None:
    leftover = POLICIES[name].leftover
    first = run(FEW, made(name), 0.2, leftover=leftover)
    second = run(FEW, made(name), 0.2, leftover=leftover)
    assert first.cost <= 0.2 + FEW.cost.max() * 20 / FEW.cost.sum()
    np.testing.assert_array_equal(first.picks, second.picks)
    assert first.picks.any()


def test_our_policy_beats_keyframes_at_equal_cost_and_the_oracle_bounds_it() -> None:
    for share in (0.5 * CAMERAS.keyframe_share, CAMERAS.keyframe_share):
        keyframes = run(CAMERAS, make("keyframes"), share)
        ours = run(CAMERAS, make("ours"), keyframes.cost)
        oracle = run(CAMERAS, make("oracle", truth=Told(CAMERAS)), keyframes.cost)
        assert ours.cost <= keyframes.cost + 1e-3
        assert keyframes.accuracy < ours.accuracy < oracle.accuracy


def test_our_policy_is_worse_without_what_it_saves() -> None:
    share = 0.5 * CAMERAS.keyframe_share
    saving = run(CAMERAS, make("feedback_only"), share)
    spending = run(CAMERAS, make("round_robin"), share)
    assert saving.accuracy > spending.accuracy + 0.2


def test_our_policy_lives_with_late_feedback() -> None:
    prompt = run(CAMERAS, make("ours"), 0.2)
    late = run(CAMERAS, make("ours"), 0.2, delay=25)
    assert late.accuracy > prompt.accuracy - 0.05


def test_a_camera_whose_answer_never_stays_is_worth_less_than_one_that_is_wrong_for_long() -> (
    None
):
    policy = make("feedback_only")
    rows = policy.join(2)
    for number in range(1, 1501):  # a minute; camera 0 changes twice a second
        arrivals, offers = one_round(number, rows, entry=number % 25 == 0)
        policy.see(arrivals)
        looked = np.array([row for row in (0, 1) if number % (12, 500)[row] == 0], np.int64)
        policy.value(arrivals, offers)
        policy.chosen(offers, looked)
        times, every = arrivals.time[looked], np.ones(len(looked), bool)
        policy.learn(
            Feedback(offers.now, rows[looked], times, np.ones((len(looked), 1)), every)
        )
    arrivals, offers = one_round(3000, rows, entry=True)  # both are out of date by now
    offers = dataclasses.replace(offers, cost=np.ones(2))
    policy.see(arrivals)
    fast, slow = policy.value(arrivals, offers)
    assert 0 < fast < slow


def test_keyframes_are_all_that_the_baseline_decodes() -> None:
    picks = run(CAMERAS, make("keyframes"), 100.0).picks
    np.testing.assert_array_equal(picks, CAMERAS.entry)
    other = run(CAMERAS, make("every_other_keyframe"), 100.0).picks
    assert not (other & ~CAMERAS.entry).any()
    assert (abs(other.sum(axis=0) - picks.sum(axis=0) / 2) <= 0.5).all()


def test_round_robin_looks_at_everybody_in_turn() -> None:
    policy = make("round_robin")
    rows = policy.join(3)
    order = []
    for number in range(6):
        arrivals, offers = one_round(number, rows)
        value = policy.value(arrivals, offers)
        pick = int(np.argmax(value / offers.cost))
        policy.chosen(offers, np.array([pick]))
        order.append(pick)
    assert order == [0, 1, 2, 0, 1, 2]


def test_pictures_that_nobody_needs_are_skipped() -> None:
    policy = make("non_reference_skip")
    arrivals, offers = one_round(0, policy.join(3), reference=[True, False, True])
    assert np.isfinite(policy.value(arrivals, offers)).tolist() == [True, False, True]


def test_unusually_large_packets_are_chosen_per_stream() -> None:
    policy = make("size_threshold")
    rows = policy.join(2)
    for number in range(50):
        usual = np.array([1000.0, 50_000.0]) * (1 + 0.05 * (number % 3))
        arrivals, offers = one_round(number, rows, size=usual)
        policy.see(arrivals)
    arrivals, offers = one_round(50, rows, size=[3000.0, 50_000.0 * 0.9])
    policy.see(arrivals)
    assert np.isfinite(policy.value(arrivals, offers)).tolist() == [True, False]


def test_streams_never_chosen_come_before_all_others_by_the_printed_formula() -> None:
    policy = make("temporal")
    rows = policy.join(3)
    arrivals, offers = one_round(1, rows)
    policy.value(arrivals, offers)
    policy.chosen(offers, np.array([1]))
    arrivals, offers = one_round(2, rows)
    ratio = policy.value(arrivals, offers) / offers.cost
    assert ratio[1] * 1e3 < ratio[0] == pytest.approx(ratio[2])


@pytest.mark.parametrize("name", ["ours", "paper", "keyframes", "temporal"])
def test_a_row_that_is_used_again_is_a_new_stream(name: str) -> None:
    policy, fresh = made(name), made(name)
    rows = policy.join(2)
    for number in range(40):
        arrivals, offers = one_round(number, rows, entry=[number % 10 == 0, False])
        policy.see(arrivals)
        policy.value(arrivals, offers)
        policy.chosen(offers, np.array([0]))
        policy.learn(
            Feedback(
                number / FPS, rows[:1], arrivals.time[:1], np.ones((1, 1)), np.ones(1, bool)
            )
        )
    policy.leave(0)
    assert policy.join(2).tolist() == [0, 2]
    fresh.join(3)
    now = one_round(40, np.array([0, 2]), entry=[True, False])
    for one in (policy, fresh):
        one.see(now[0])
    if name != "ours":  # whose rate of change is shared by all streams
        at = policy.value(*now), fresh.value(*now)
        np.testing.assert_array_equal(at[0] > 0, at[1] > 0)
    with pytest.raises(KeyError):
        policy.leave(7)


def test_no_camera_is_forgotten() -> None:
    bound = 6.0
    cameras = Cameras.made(30, 1500, seed=5, groups=(25, 50))
    free = run(cameras, make("ours"), 0.1)
    held = run(cameras, make("ours", max_staleness=bound), 0.1)
    assert free.longest > bound * FPS
    assert held.longest <= bound * FPS
    assert held.cost <= 0.1 + 1e-6


def test_others_wait_for_a_due_camera_that_does_not_fit() -> None:
    cameras = Cameras.made(30, 1500, seed=5, groups=(50,))
    bound, group = 12.0, 2.0  # all joined together: when all are due, some miss an entry
    done = run(cameras, make("random", max_staleness=bound), 0.1)
    assert done.longest <= (bound + group + 1.0) * FPS
    assert run(cameras, make("random"), 0.1).longest == len(cameras.entry)  # never


def test_cameras_that_the_budget_leaves_waiting_are_named() -> None:
    policy = Bounded(make("keyframes"), 1.0)
    cameras = Cameras.made(20, 500, seed=6)
    done = run(cameras, policy, 0.02)
    waiting = [row for row in range(20) if not done.picks[-25:, row].any()]
    overdue = policy.overdue(499 / FPS).tolist()
    assert overdue
    assert set(overdue) <= set(waiting)
    assert done.cost <= 0.02 + 1e-3


def test_a_policy_that_lacks_what_it_needs_says_so() -> None:
    with pytest.raises(SettingsError, match="expected one of keyframes"):
        make("best")
    for name, kind in (("paper", "published"), ("contextual", "contextual")):
        with pytest.raises(
            SettingsError,
            match=f"policy '{name}': expected .*, got no gate: .*gate fit .*--network {kind}",
        ):
            make(name)
    with pytest.raises(SettingsError, match="labels"):
        make("oracle")
    with pytest.raises(SettingsError, match="above 0"):
        make("ours", max_staleness=0.0)


@pytest.mark.parametrize(
    ("name", "kind"),
    [("paper", "published"), ("contextual", "contextual"), ("ours", "extended")],
)
def test_a_policy_runs_the_network_that_it_names_and_no_other(name: str, kind: str) -> None:
    gates = {one.network.kind: one for one in (published(), contextual(), extended())}
    assert matching(name, list(gates.values())) is gates.pop(kind)
    for other, gate in gates.items():
        with pytest.raises(
            SettingsError,
            match=f"policy '{name}': expected .*'{kind}', got {other}: .*--network {kind}",
        ):
            make(name, predictor=gate)
    with pytest.raises(SettingsError, match=f"'{kind}', got "):
        matching(name, list(gates.values()))
    with pytest.raises(SettingsError, match="at most one of each"):
        matching(name, [published(), published(1)])


def test_what_runs_no_network_leaves_gates_alone() -> None:
    assert matching("keyframes", [published(), extended()]) is None
    assert matching("feedback_only", [extended()]) is None
    assert matching("ours", []) is None


@pytest.mark.parametrize(("name", "listens"), [("paper", True), ("contextual", False)])
def test_feedback_moves_the_published_design_and_not_its_ablation(
    name: str, listens: bool
) -> None:
    told, untold = made(name), made(name)
    for policy, reward in ((told, 1.0), (untold, 0.0)):
        rows = policy.join(3)
        for number in range(1, 20):
            arrivals, offers = one_round(number, rows, entry=number % 5 == 0)
            policy.see(arrivals)
            policy.value(arrivals, offers)
            policy.chosen(offers, rows)
            rewards = np.array([[reward], [0.0], [0.0]])
            heard = Feedback(offers.now, rows, arrivals.time, rewards, np.ones(3, bool))
            policy.learn(heard)
    now = one_round(20, rows, entry=True)
    for policy in (told, untold):
        policy.see(now[0])
    differs = told.value(*now) != untold.value(*now)
    assert differs.tolist() == [listens, False, False]


def one_round(
    number: int,
    rows: np.ndarray,
    *,
    size: object = 1000.0,
    entry: object = False,
    reference: object = True,
) -> tuple[Arrivals, Offers]:
    count = len(rows)
    full = lambda value, dtype: np.broadcast_to(np.asarray(value, dtype), count).copy()  # noqa: E731
    entries, references = full(entry, bool), full(reference, bool)
    arrivals = Arrivals(
        stream=rows,
        time=np.full(count, number / FPS),
        size=full(size, np.float64),
        type=np.where(entries, 1, 2).astype(np.int8),
        reference=references,
        entry=entries,
        slice_qp=np.full(count, np.nan),
    )
    cost = np.linspace(1.0, 1.5, count)
    offers = Offers(number / FPS, np.arange(count), rows, cost, cost, entries, references)
    return arrivals, offers


def test_a_policy_without_values_is_none() -> None:
    with pytest.raises(TypeError, match="_value"):
        BasePolicy()  # type: ignore[abstract]
