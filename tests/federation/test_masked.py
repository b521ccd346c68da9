"""Secure sums by Flower's SecAgg+: the same mean, nothing of a single site on the wire."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("flwr", reason="needs the extra federation")

from flwr.app import Context, Message, RecordDict
from made_sites import TASK, LinearSite, dying_in, mean, new_federation, run_in_process

from triparty.developer.federation.plan import Plan
from triparty.developer.federation.simulation import Site
from triparty.device.federation.masked import masked_app

PLAN = Plan(TASK, rounds=1, wait_s=0.0, least_sites=3, secure=True, deadline_s=5)
LEARNERS = {name: LinearSite.draw(seed, 10 * seed) for seed, name in enumerate("abcd", 1)}


def masked(learner: LinearSite) -> Site:
    app = masked_app(lambda context: learner)
    return lambda message, context: app(message, context)


def sites() -> dict[str, Site]:
    return {name: masked(learner) for name, learner in LEARNERS.items()}


def test_the_sum_is_that_of_all_sites_and_no_answer_shows_one(tmp_path: Path) -> None:
    federation = new_federation(tmp_path, replace(PLAN, rounds=2))
    sent: list[RecordDict] = []

    def watched(site: Site) -> Site:
        def one(message: Message, context: Context) -> Message:
            reply = site(message, context)
            sent.append(reply.content)
            return reply

        return one

    first = new_federation(tmp_path / "plain", PLAN).last().weights
    got = run_in_process(federation, {name: watched(site) for name, site in sites().items()})
    wanted = first
    for _ in range(2):
        wanted = mean(*(one.train(wanted, TASK).weights for one in LEARNERS.values()))
    for name, value in wanted.items():
        np.testing.assert_allclose(got[name], value, atol=2e-5)
    rounds = [one for one in federation.journal().events() if one["event"] == "round"]
    assert [one["sites"] for one in rounds] == [list("abcd")] * 2
    assert len(sent) == 2 * 4 * 4, "four steps a round"
    told = [config for one in sent for config in one.config_records.values()]
    said = " ".join(f"{name} {value}" for config in told for name, value in config.items())
    assert "loss" not in said
    assert {
        config["fitres.num_examples"] for config in told if "fitres.num_examples" in config
    } <= {1}


def test_a_site_that_dies_in_the_protocol_is_left_out(tmp_path: Path) -> None:
    federation = new_federation(tmp_path, PLAN)
    dying = {**sites(), "d": dying_in(3, masked(LEARNERS["d"]))}
    got = run_in_process(federation, dying)
    (done,) = (one for one in federation.journal().events() if one["event"] == "round")
    assert done["sites"] == ["a", "b", "c"]
    assert done["left_out"] == {"d": "it did not finish the protocol"}
    start = new_federation(tmp_path / "plain", PLAN).last().weights
    wanted = mean(*(LEARNERS[name].train(start, TASK).weights for name in "abc"))
    np.testing.assert_allclose(got["w"], wanted["w"], atol=2e-5)


def test_too_few_for_the_protocol_change_nothing(tmp_path: Path) -> None:
    federation = new_federation(tmp_path, replace(PLAN, patience=9))
    dying: dict[str, Any] = {name: dying_in(2, site) for name, site in sites().items()}
    before = federation.last().weights
    got = run_in_process(federation, dying)
    np.testing.assert_array_equal(got["w"], before["w"])
    (done,) = (one for one in federation.journal().events() if one["event"] == "in-vain")
    assert len(done["left_out"]) == 4
