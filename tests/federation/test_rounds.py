"""Rounds of Flower's own strategies, in process: who counts, who does not, what comes out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("flwr", reason="needs the extra federation")

from flwr.app import Context, Error, Message
from flwr.common.constant import ErrorCode
from made_sites import (
    START,
    TASK,
    LinearSite,
    dead,
    dying_in,
    honest,
    mean,
    new_federation,
    run_in_process,
    sending,
    with_array,
    with_metrics,
)

from triparty.common.errors import FederationError
from triparty.developer.federation.federation import Federation
from triparty.developer.federation.plan import Plan, Privacy

PLAN = Plan(TASK, rounds=1, wait_s=0.0)
A, B, C = (LinearSite.draw(seed, rows) for seed, rows in ((1, 10), (2, 40), (3, 25)))
HONEST = {"a": honest(A), "b": honest(B)}


def events(federation: Federation, kind: str) -> list[dict[str, Any]]:
    return [one for one in federation.journal().events() if one["event"] == kind]


def test_the_mean_of_one_full_batch_step_is_gradient_averaging(tmp_path: Path) -> None:
    """Algorithm 5.1 line 10: theta + mean of the sites' changes, each site alike."""
    rounds = 12
    federation = new_federation(tmp_path, replace(PLAN, rounds=rounds))
    got = run_in_process(federation, HONEST)
    theta = {name: value.astype(np.float64) for name, value in START.items()}
    for _ in range(rounds):
        slopes = [site.gradient(theta) for site in (A, B)]
        theta = {
            name: value - TASK.rate * np.mean([slope[name] for slope in slopes], axis=0)
            for name, value in theta.items()
        }
    for name, value in theta.items():
        np.testing.assert_allclose(got[name], value, atol=2e-6)
    pooled = LinearSite(np.vstack([A.x, B.x]), np.vstack([A.y, B.y]))
    alone = pooled.train(START, replace(TASK, epochs=rounds)).weights
    assert np.abs(alone["w"] - theta["w"]).max() > 1e-3, "pooled data are another thing"


def test_examples_weigh_if_asked_and_no_site_weighs_more_than_allowed(tmp_path: Path) -> None:
    plan = replace(PLAN, aggregation="examples", most_examples=20)
    boasting = with_metrics(examples=10**9)
    got = run_in_process(new_federation(tmp_path, plan), {"a": honest(A), "liar": boasting})
    one, other = (site.train(START, TASK).weights for site in (A, LinearSite.draw(9)))
    np.testing.assert_allclose(got["w"], (one["w"] * 10 + other["w"] * 20) / 30, atol=1e-6)


def lying_metrics(name: str, value: Any) -> Any:
    return with_metrics(**{name: value})


def expired(message: Message, context: Context) -> Message:
    """What a SuperLink says in the place of a site whose time is over."""
    return Message(Error(ErrorCode.MESSAGE_UNAVAILABLE, "not found"), reply_to=message)


BAD = {
    "NaN": (with_array("w", np.full((3, 2), np.nan, np.float32)), "not finite"),
    "infinite": (with_array("b", np.float32([np.inf, 0])), "not finite"),
    "shape": (with_array("w", np.zeros((2, 3), np.float32)), "shape (2, 3)"),
    "dtype": (with_array("w", np.zeros((3, 2), np.float64)), "dtype float64"),
    "unknown": (with_array("more", np.zeros(1, np.float32)), "unknown array 'more'"),
    "missing": (
        sending(lambda reply: reply.content.array_records["arrays"].pop("b")),
        "no array 'b'",
    ),
    "huge": (with_array("w", np.full((3, 2), 1e6, np.float32)), "norm"),
    "metrics": (lying_metrics("secret", 3.0), "metrics"),
    "examples": (lying_metrics("examples", 0), "examples"),
    "loss": (lying_metrics("loss", float("nan")), "loss"),
    "records": (
        sending(lambda reply: reply.content.array_records.clear()),
        "without one record",
    ),
    "dead": (dead, "no answer"),
    "expired": (expired, "no answer within 600 s"),
}


@pytest.mark.parametrize("what", BAD)
def test_a_bad_answer_is_left_out_with_its_reason(tmp_path: Path, what: str) -> None:
    site, reason = BAD[what]
    federation = new_federation(tmp_path, PLAN)
    got = run_in_process(federation, {**HONEST, "bad": site})
    wanted = mean(A.train(START, TASK).weights, B.train(START, TASK).weights)
    for name, value in wanted.items():
        np.testing.assert_allclose(got[name], value, atol=1e-6)
    (done,) = events(federation, "round")
    assert done["sites"] == ["a", "b"]
    assert list(done["left_out"]) == ["bad"]
    assert reason in done["left_out"]["bad"]


def test_a_site_that_fails_tells_no_text_of_its_own(tmp_path: Path) -> None:
    class Failing:
        def train(self, weights: Any, task: Any) -> Any:
            raise ValueError("patient 4711 has no outputs")

    federation = new_federation(tmp_path, PLAN)
    run_in_process(federation, {**HONEST, "c": honest(Failing())})
    (done,) = events(federation, "round")
    assert done["left_out"]["c"].startswith("it failed: training failed")
    assert "4711" not in federation.path("journal.jsonl").read_text()


@pytest.mark.parametrize(
    ("plan", "liar"),
    [
        (replace(PLAN, aggregation="median", least_sites=3), 50.0),
        (replace(PLAN, aggregation="trimmed", least_sites=3), 50.0),
        (replace(PLAN, aggregation="krum", least_sites=5), 50.0),
    ],
    ids=lambda value: value.aggregation if isinstance(value, Plan) else "",
)
def test_a_lie_within_the_bounds_moves_the_mean_and_not_the_robust(
    tmp_path: Path, plan: Plan, liar: float
) -> None:
    sites = {**HONEST, "c": honest(C), "d": honest(LinearSite.draw(4))}
    sites["liar"] = with_array("w", np.full((3, 2), liar, np.float32))
    one = run_in_process(new_federation(tmp_path / "one", plan), sites)
    other = run_in_process(new_federation(tmp_path / "other", PLAN), sites)
    assert np.abs(one["w"]).max() < 0.5
    assert np.abs(other["w"]).max() > 5


def test_too_few_answers_change_nothing_and_end_the_run_at_last(tmp_path: Path) -> None:
    federation = new_federation(tmp_path, replace(PLAN, rounds=9, patience=2))
    with pytest.raises(FederationError, match=r"2 rounds in a row.*dead: no answer"):
        run_in_process(federation, {"a": honest(A), "dead": dead})
    np.testing.assert_array_equal(federation.last().weights["w"], START["w"])
    assert len(events(federation, "in-vain")) == 2
    assert events(federation, "stopped")


def test_a_run_does_not_wait_for_ever_for_sites(tmp_path: Path) -> None:
    federation = new_federation(tmp_path, replace(PLAN, least_sites=3))
    with pytest.raises(FederationError, match="2 sites are connected after 0 s, 3 are needed"):
        run_in_process(federation, HONEST)


def test_who_answers_for_another_does_not_count_for_it(tmp_path: Path) -> None:
    def claim(reply: Any) -> None:
        reply.metadata.__dict__["_src_node_id"] = 1

    federation = new_federation(tmp_path, PLAN)
    run_in_process(federation, {**HONEST, "c": sending(claim)})
    assert events(federation, "round")[0]["sites"] == ["a", "b", "c"]


class Killed(BaseException):
    """As SIGKILL: nothing of ours runs after it."""


def test_a_killed_run_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    plan = replace(PLAN, rounds=6)
    whole = run_in_process(new_federation(tmp_path / "whole", plan), HONEST)
    federation = new_federation(tmp_path / "cut", plan)
    with pytest.raises(Killed):
        run_in_process(federation, {**HONEST, "b": dying_in(4, honest(B), Killed)})
    assert federation.last().round == 3
    went_on = run_in_process(federation, HONEST)
    for name, value in whole.items():
        np.testing.assert_array_equal(went_on[name], value)
    assert federation.last().round == 6
    assert [one["round"] for one in events(federation, "round")] == [1, 2, 3, 4, 5, 6]
    assert [one["round"] for one in events(federation, "began")] == [1, 4]


def test_weights_of_another_plan_are_not_gone_on_with(tmp_path: Path) -> None:
    federation = new_federation(tmp_path, PLAN)
    run_in_process(federation, HONEST)
    federation.set_plan(replace(PLAN, rounds=2))
    with pytest.raises(FederationError, match="another plan"):
        federation.last()


def test_noise_is_as_large_as_the_plan_says(tmp_path: Path) -> None:
    weights = {"w": np.zeros((100, 100), np.float32), "b": np.zeros(2, np.float32)}

    class Still:
        def train(self, weights: Any, task: Any) -> Any:
            moved = {name: value + np.float32(1e-6) for name, value in weights.items()}
            return replace(A.train(START, TASK), weights=moved)

    plan = replace(PLAN, privacy=Privacy(noise=2.0, clip=0.5))
    federation = new_federation(tmp_path, plan, weights)
    got = run_in_process(federation, {name: honest(Still()) for name in "abc"})
    assert got["w"].dtype == np.float32
    # 2.0 clipping norms of 0.5, over the two sites that a round needs at least.
    assert np.isclose(got["w"].std(), 2.0 * 0.5 / 2, rtol=0.05)


def test_a_site_that_sends_what_it_got_does_not_end_a_private_run(tmp_path: Path) -> None:
    class Echo:
        def train(self, weights: Any, task: Any) -> Any:
            return replace(A.train(START, TASK), weights=weights)

    plan = replace(PLAN, privacy=Privacy(noise=1e-6, clip=1.0))
    federation = new_federation(tmp_path, plan)
    run_in_process(federation, {**HONEST, "echo": honest(Echo())})
    assert "too small" in events(federation, "round")[0]["left_out"]["echo"]


def test_updates_are_clipped_before_the_noise(tmp_path: Path) -> None:
    plan = replace(PLAN, privacy=Privacy(noise=1e-6, clip=0.01))
    got = run_in_process(new_federation(tmp_path, plan), HONEST)
    norm = np.sqrt(sum(float(np.square(value).sum()) for value in got.values()))
    assert 0 < norm <= 0.0101


@pytest.mark.parametrize(
    "wrong",
    [
        {"rounds": 0},
        {"least_sites": 0},
        {"deadline_s": float("nan")},
        {"largest_norm": 0.0},
        {"aggregation": "best"},
        {"aggregation": "krum", "least_sites": 4},
        {"aggregation": "trimmed", "least_sites": 2},
        {"secure": True, "least_sites": 2},
        {"secure": True, "least_sites": 3, "privacy": Privacy(1.0, 1.0)},
        {"aggregation": "examples", "privacy": Privacy(1.0, 1.0)},
    ],
    ids=str,
)
def test_a_plan_that_contradicts_itself_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(FederationError):
        replace(PLAN, **wrong)


def test_a_plan_is_read_as_it_was_written() -> None:
    plan = replace(PLAN, privacy=Privacy(1.0, 0.25), task=replace(TASK, fixed={"x": (0.1,)}))
    again = Plan.from_json(plan.to_json())
    assert again.to_json() == plan.to_json()
    assert again.privacy == plan.privacy
    for text in ("", "[]", "{}", '{"task": 3}', plan.to_json().replace("rounds", "turns")):
        with pytest.raises(FederationError):
            Plan.from_json(text)


@pytest.mark.parametrize(
    "plan",
    [
        replace(PLAN, privacy=Privacy(noise=1e-9, clip=0.01)),
        replace(PLAN, aggregation="uniform"),
        replace(PLAN, aggregation="median", least_sites=3),
        replace(PLAN, aggregation="trimmed", least_sites=3),
        replace(PLAN, aggregation="krum", least_sites=5),
    ],
    ids=lambda plan: "privacy" if plan.privacy else plan.aggregation,
)
def test_weights_count_by_name_in_whatever_order_a_site_sends_them(
    tmp_path: Path, plan: Plan
) -> None:
    """Flower clips, and chooses among updates, array by array as they come."""

    def turn(reply: Any) -> None:
        record = reply.content.array_records["arrays"]
        arrays = list(record.items())
        record.clear()
        for name, array in reversed(arrays):
            record[name] = array

    sites = [LinearSite.draw(seed) for seed in range(5)]
    straight = {f"s{n}": honest(site) for n, site in enumerate(sites)}
    turned = {f"s{n}": sending(turn, seed=n) for n in range(5)}
    start = {name: value + np.float32(0.5) for name, value in START.items()}
    one = run_in_process(new_federation(tmp_path / "one", plan, start), straight)
    other = run_in_process(new_federation(tmp_path / "other", plan, start), turned)
    assert one.keys() == other.keys() == START.keys()
    for name, value in one.items():
        np.testing.assert_allclose(other[name], value, atol=1e-6)
        assert np.abs(value - start[name]).max() > 1e-4
