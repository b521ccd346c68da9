"""The search over mitigations: what it keeps, what it calls best, and that it runs."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.mitigations import (
    KNOWN,
    ROWS,
    Tried,
    figures_of,
    frontier,
    grid,
    search,
    within,
)
from triparty.developer.audit.compare import compare
from triparty.developer.audit.mitigations import Mitigation
from triparty.developer.audit.stage import QUICK

EFFORT = replace(QUICK, rows=256, most=256, judged=3, length=32, requests=10, decoys=200)


def tried(name: str, attributed: float, agreement: float = 1.0, known: int = 1) -> Tried:
    return Tried(Mitigation(name), known, attributed, agreement, 1.0)


def test_what_keeps_the_bound_keeps_it_however_much_is_known() -> None:
    found = [
        tried("noise", 0.05, known=1),
        tried("noise", 0.9, known=16),
        tried("decoys", 0.1, known=16),
        tried("private", 0.02, known=1),
        tried("private", 0.08, known=16),
    ]
    assert [one.name for one in within(found, 0.1)] == ["decoys", "private"]
    assert [one.name for one in within(found, 0.09)] == ["private"]
    assert within(found, 0.01) == []


def test_the_frontier_is_what_nothing_beats_in_both() -> None:
    good, exact = tried("good", 0.1, 0.9), tried("exact", 0.8, 1.0)
    beaten, elsewhere = tried("beaten", 0.2, 0.9), tried("elsewhere", 0.9, 0.5, known=16)
    assert frontier([good, exact, beaten, elsewhere]) == [good, exact, elsewhere]
    twin = tried("twin", 0.1, 0.9)
    assert frontier([good, twin]) == [good, twin], "neither beats the other"


def test_the_grid_has_every_kind_at_every_number_of_rows_and_no_name_twice() -> None:
    found = list(grid(ROWS))
    assert len({one.name for one in found}) == len(found)
    for rows in ROWS:
        kinds = [one for one in found if one.rows_per_key == rows]
        assert {one.noise for one in kinds} == {0.0, 0.3, 0.5, 1.0}
        assert any(one.private_table for one in kinds)
        assert any(one.tuned_under for one in kinds)
    assert sorted(one.decoys for one in found if one.decoys) == [9, 14, 19]


def test_a_search_measures_and_judges_on_other_texts(stories_model: Path) -> None:
    plain = Mitigation("plain", {"scheme": "orthogonal"}, rows_per_key=128)
    decoys = Mitigation("9 decoys", decoys=9)
    found = search(stories_model, EFFORT, [plain, decoys], known=(1, 16))
    assert [(one.mitigation.name, one.known) for one in found] == [
        ("plain", 1),
        ("plain", 16),
        ("9 decoys", 16),
    ]
    assert [one.attributed for one in found[:2]] == [1.0, 1.0]
    assert found[2].attributed < 0.5
    assert all(one.agreement > 0.999 for one in found)
    judged = compare(stories_model, mitigations=[decoys], effort=replace(EFFORT, seed=1))
    kept = json.loads(json.dumps(figures_of(found, judged, EFFORT)))
    assert [line["name"] for line in kept["tried"]] == ["plain", "plain", "9 decoys"]
    (line,) = kept["judged"]
    assert line["bytes_ratio"] == pytest.approx(10)
    assert figures_of(found, None, EFFORT)["judged"] == []
    assert KNOWN[-1] > 16
