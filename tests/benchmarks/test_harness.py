"""The result harness: the JSON schema that other tools read, and refusals."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from benchmarks import harness
from benchmarks.filter_sweeps import Sweep, draw
from benchmarks.harness import (
    BenchError,
    Case,
    Effort,
    SkippedError,
    case,
    cases_of,
    run_case,
    run_suite,
)


@case("a figure", unit="s", better="lower", target=2.0, reference="a table")
def figure(effort: Effort) -> Iterator[float]:
    """Three figures, more when there is time."""
    yield from (3.0, 1.0, 2.0)
    if not effort.quick:
        yield 9.0


@case("no figure", unit="s", better="lower")
def nothing(effort: Effort) -> Iterator[float]:
    """A case that forgot to measure."""
    yield from ()


def test_a_result_is_the_median_with_its_spread() -> None:
    result = run_case(figure, Effort(quick=True))
    assert (result.value, result.spread, result.runs) == (2.0, (1.0, 3.0), 3)


def test_a_case_without_a_figure_is_an_error() -> None:
    with pytest.raises(BenchError, match="no figure"):
        run_case(nothing, Effort(quick=True))


def test_the_json_has_the_fields_that_tools_read(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(harness, "OUTPUT", tmp_path)
    monkeypatch.setattr(harness, "cases_of", lambda suite: [figure] if suite == "audit" else [])
    written = run_suite("audit")
    document = json.loads(written.read_text(encoding="utf-8"))
    assert document["suite"] == "audit"
    assert set(document) == {"suite", "commit", "machine", "results"}
    assert document["results"] == [
        {
            "name": "a figure",
            "value": 2.5,
            "unit": "s",
            "better": "lower",
            "target": 2.0,
            "reference": "a table",
            "spread": [1.0, 9.0],
            "runs": 4,
        }
    ]
    assert written.with_suffix(".png").read_bytes().startswith(b"\x89PNG")


def test_the_short_form_of_a_suite_leaves_the_long_ones_figures_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(harness, "OUTPUT", tmp_path)
    monkeypatch.setattr(harness, "cases_of", lambda suite: [figure])
    runs = [
        json.loads(run_suite("audit", quick=quick).read_text(encoding="utf-8"))["results"][0]
        for quick in (False, True)
    ]
    assert [run["runs"] for run in runs] == [4, 3]
    names = {path.name for path in tmp_path.glob("*.json")}
    assert names == {"audit.json", "audit-quick.json"}


def test_a_case_that_cannot_run_here_is_skipped_with_its_reason(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    @case("elsewhere", unit="s", better="lower")
    def elsewhere(_: Effort) -> Iterator[float]:
        raise SkippedError("it needs another machine")
        yield 0.0

    monkeypatch.setattr(harness, "OUTPUT", tmp_path)
    for cases, left in (([elsewhere, figure], ["a figure"]), ([elsewhere], [])):
        monkeypatch.setattr(harness, "cases_of", lambda suite, cases=cases: cases)
        document = json.loads(run_suite("audit").read_text(encoding="utf-8"))
        assert [result["name"] for result in document["results"]] == left
        assert "skipped: it needs another machine" in capsys.readouterr().out


def test_a_case_for_a_gpu_is_there_and_says_what_it_needs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    (gpu,) = [item for item in cases_of("serving") if "7B-shaped" in item.name]
    with pytest.raises(SkippedError, match="GPU"):
        run_case(gpu, Effort(quick=True))


def test_a_suite_may_draw_for_itself(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    drawn: list[tuple[int, str]] = []
    module = ModuleType("benchmarks.suite_audit")
    module.draw = lambda results, path: drawn.append((len(results), path.name))  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "benchmarks.suite_audit", module)
    monkeypatch.setattr(harness, "OUTPUT", tmp_path)
    monkeypatch.setattr(harness, "_MOST_ROWS", 2)
    monkeypatch.setattr(harness, "cases_of", lambda suite: [figure] * 5)  # in three columns
    written = run_suite("audit", quick=True)
    assert drawn == [(5, "audit-quick-studies.png")]
    assert written.with_suffix(".png").read_bytes().startswith(b"\x89PNG")


def test_lines_of_a_sweep_are_cases_and_a_drawing(tmp_path: Path) -> None:
    lines = {"up": lambda value, seed: value + seed, "flat": lambda value, seed: 0.5}
    sweep = Sweep("a study", "share", (0.1, 1.0), lines, seeds=3)
    results = [run_case(one, Effort(quick=False)) for one in sweep.cases()]
    assert [(one.name, one.value, one.runs) for one in results] == [
        ("a study, up, share 0.1", pytest.approx(110.0), 3),
        ("a study, up, share 1", pytest.approx(200.0), 3),
        ("a study, flat, share 0.1", 50.0, 3),
        ("a study, flat, share 1", 50.0, 3),
    ]
    draw([sweep, sweep, sweep], results, tmp_path / "lines.png")
    assert (tmp_path / "lines.png").read_bytes().startswith(b"\x89PNG")


def test_unknown_and_empty_suites_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BenchError, match="unknown suite 'speed': expected quick or inference"):
        run_suite("speed")
    monkeypatch.setattr(harness, "cases_of", lambda suite: [])
    with pytest.raises(BenchError, match="no cases yet"):
        run_suite("links")


def test_every_shipped_case_says_what_it_measures() -> None:
    cases = [item for suite in harness.SUITES for item in cases_of(suite)]
    assert len({item.name for item in cases}) == len(cases) > 5
    assert all(isinstance(item, Case) and item.unit for item in cases)
