"""The studies of packet gating: what they compare is what they say, and the suite has them."""

from __future__ import annotations

from collections import Counter
from dataclasses import fields

import numpy as np
import pytest
from made_traces import ONLY_P, made_trace

from benchmarks import gating_small
from benchmarks.gating_adaptation import CHANGES
from benchmarks.gating_cameras import ASKED, SETTINGS
from benchmarks.gating_night import LIGHT, darkened
from benchmarks.gating_starvation import BOUND_S, SHARES, bound_share
from benchmarks.gating_starvation import POLICIES as STARVED
from benchmarks.gating_studies import STUDIES
from benchmarks.gating_switches import ALL, VARIANTS, Variant
from benchmarks.gating_traces import BY_NAME
from benchmarks.harness import cases_of
from triparty.device.gate.features import EXTENDED
from triparty.device.gate.fleet import full_rate, spread, tables
from triparty.device.gate.optimizer import LEFTOVERS
from triparty.device.gate.policies import POLICIES


def test_every_study_is_a_case_of_the_suite_under_its_own_name() -> None:
    names = Counter(one.name for one in cases_of("gating"))
    assert [name for name, count in names.items() if count > 1] == []
    for wanted in (*SETTINGS, *ASKED, *CHANGES, *SHARES, *(set(VARIANTS) - {ALL})):
        assert any(f" {wanted}" in name for name in names), wanted


def test_what_is_compared_exists() -> None:
    assert set(SETTINGS) <= BY_NAME.keys()
    assert {*gating_small.COMPARED, *STARVED} <= POLICIES.keys()
    assert {"cameras", "task_budgets", "nights", "starvation", "switches"} <= STUDIES.keys()


def test_a_variant_differs_from_ours_in_one_part() -> None:
    whole = VARIANTS[ALL]
    for name, variant in VARIANTS.items():
        differing = [
            one.name
            for one in fields(Variant)
            if getattr(variant, one.name) != getattr(whole, one.name)
        ]
        assert len(differing) == (0 if name == ALL else 1), (name, differing)
    left_out = {
        group
        for variant in VARIANTS.values()
        for group in set(EXTENDED) - set(variant.kind.groups)
    }
    assert left_out == set(EXTENDED)
    assert {variant.leftover for variant in VARIANTS.values()} == set(LEFTOVERS)


def test_the_rival_is_the_best_of_the_others_and_never_the_oracle(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    right = {
        "keyframes": [0.5, 0.9, 0.7],
        "round_robin": [0.6, 0.6, 0.6],
        "size_threshold": [0.1, 0.1, 0.1],
        "paper": [0.2, 0.2, 0.2],
        "ours": [0.6, 0.8, 0.8],
        "oracle": [1.0, 1.0, 1.0],
    }
    monkeypatch.setattr(gating_small, "accuracies", lambda policy, *_: right[policy])
    assert gating_small.rival(0.1, gating_small.SMALL) == "keyframes"
    ahead = gating_small.ahead(0.1, gating_small.SMALL)
    np.testing.assert_allclose(ahead, [0.1, -0.1, 0.1])


def test_a_night_is_darker_greyer_and_noisier() -> None:
    height, width = 64, 64
    planes = np.full((height * 3 // 2, width), 160, dtype=np.uint8)
    dark = darkened(planes, height, np.random.default_rng(0)).astype(float)
    assert dark[:height].mean() == pytest.approx(160 * LIGHT, abs=1.0)
    assert dark[:height].std() > 3.0
    assert dark[height:].min() > 128
    assert dark[height:].max() < 160


def test_what_a_bound_takes_is_one_entry_of_every_stream_in_its_time() -> None:
    known = tables([made_trace(ONLY_P, 40)])
    streams = spread(known, 5, seed=0)
    entries = known.cost[known.entry]
    wanted = 5 * entries.mean() / BOUND_S / full_rate(known, streams)
    assert bound_share(known, streams) == pytest.approx(wanted)
