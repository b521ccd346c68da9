"""How a figure becomes a result: cases, runs, the JSON schema and the plot.

A suite is a module `benchmarks.suite_NAME` that holds functions marked with `@case`; its own
`draw(results, path)`, if there is one, draws what bars do not show. A case
yields one float a run, already a ratio or CPU time, compared with its baseline in the same
run; the harness reports the median and the spread. `build/bench/NAME.json` holds:

* `suite`, `commit`, `machine`
* `results`: list of `name`, `value` (median), `unit`, `better` (`higher` or `lower`),
  `target` (number or null), `reference` (text with its source, or null),
  `spread` ([smallest, largest]), `runs` (count)

A case that this machine cannot run is skipped with its reason, and is not in the document.
"""

from __future__ import annotations

import importlib
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

ROOT = Path(__file__).resolve().parent.parent
OUTPUT = ROOT / "build" / "bench"
SUITES = ("inference", "compiler", "serving", "audit", "gating", "filters", "links", "system")

_MOST_ROWS = 60
Better = Literal["higher", "lower"]
Runs = Callable[["Effort"], Iterable[float]]


@dataclass(frozen=True)
class Effort:
    """How long a case may take.

    Attributes:
        quick: a short form that shows that the case works.
    """

    quick: bool

    @property
    def runs(self) -> int:
        """How many figures a case yields."""
        return 2 if self.quick else 7


@dataclass(frozen=True)
class Case:
    """One figure of a suite."""

    name: str
    unit: str
    better: Better
    target: float | None
    reference: str | None
    measure: Runs


@dataclass(frozen=True)
class Result:
    """A measured case, in the field order of the JSON schema."""

    name: str
    value: float
    unit: str
    better: Better
    target: float | None
    reference: str | None
    spread: tuple[float, float]
    runs: int


class BenchError(Exception):
    """A benchmark that cannot run; the message says why."""


class SkippedError(BenchError):
    """A case that this machine cannot run, and others can; the message says why."""


def case(
    name: str,
    *,
    unit: str,
    better: Better,
    target: float | None = None,
    reference: str | None = None,
) -> Callable[[Runs], Case]:
    """Marks a function that yields one float a run as a case of its suite."""
    return lambda measure: Case(name, unit, better, target, reference, measure)


def cases_of(suite: str) -> list[Case]:
    """The cases of a suite, in the order of its module, those of a table one by one."""
    try:
        module = importlib.import_module(f"benchmarks.suite_{suite}")
    except ModuleNotFoundError as missing:
        if missing.name != f"benchmarks.suite_{suite}":
            raise
        return []
    found: list[Case] = []
    for value in vars(module).values():
        table = value if isinstance(value, tuple) else (value,)
        found += [one for one in table if isinstance(one, Case)]
    return found


def run_case(item: Case, effort: Effort) -> Result:
    """Measures a case; the value is the median over its runs."""
    figures = [float(figure) for figure in item.measure(effort)]
    if not figures:
        raise BenchError(f"case '{item.name}' yielded no figure")
    return Result(
        name=item.name,
        value=statistics.median(figures),
        unit=item.unit,
        better=item.better,
        target=item.target,
        reference=item.reference,
        spread=(min(figures), max(figures)),
        runs=len(figures),
    )


def document(suite: str, results: list[Result]) -> dict[str, Any]:
    """The JSON document of a suite."""
    return {
        "suite": suite,
        "commit": _commit(),
        "machine": _machine(),
        "results": [vars(result) | {"spread": list(result.spread)} for result in results],
    }


def run_suite(name: str, *, quick: bool = False) -> Path:
    """Runs a suite and writes its JSON and plot.

    Args:
        name: of it, or `quick`: the short form of all.
        quick: the short form of this one, which shows that its cases work.

    Raises:
        BenchError: there is none, it has no cases, or one of them cannot be measured here.
    """
    if name == "quick":
        effort, suites = Effort(quick=True), SUITES
    elif name in SUITES:
        effort, suites = Effort(quick=quick), (name,)
    else:
        raise BenchError(f"unknown suite '{name}': expected quick or {', '.join(SUITES)}")
    items = [(suite, item) for suite in suites for item in cases_of(suite)]
    if not items:
        raise BenchError(f"suite '{name}' has no cases yet")
    results = []
    for suite, item in items:
        print(f"{suite}: {item.name} ...", file=sys.stderr, flush=True)
        try:
            result = run_case(item, effort)
        except SkippedError as error:
            print(f"  skipped: {error}", flush=True)
            continue
        print(_line(result), flush=True)
        results.append(result)
    OUTPUT.mkdir(parents=True, exist_ok=True)
    target = OUTPUT / (f"{name}-quick.json" if quick else f"{name}.json")
    target.write_text(json.dumps(document(name, results), indent=2) + "\n", encoding="utf-8")
    if not results:
        return target
    _plot(name, results, target.with_suffix(".png"))
    own = getattr(sys.modules.get(f"benchmarks.suite_{name}"), "draw", None)
    if own is not None:
        own(results, target.with_name(f"{target.stem}-studies.png"))
    return target


def cpu_seconds() -> float:
    """CPU time of this process and its ended children, user and system."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


@contextmanager
def cpu_time(into: list[float]) -> Iterator[None]:
    """Appends the CPU seconds of a block to a list."""
    start = cpu_seconds()
    yield
    into.append(cpu_seconds() - start)


def _line(result: Result) -> str:
    low, high = result.spread
    goal = "" if result.target is None else f", target {result.target:g}"
    return (
        f"  {result.value:.4g} {result.unit} "
        f"({low:.4g} to {high:.4g} in {result.runs} runs; {result.better} is better{goal})"
    )


def _commit() -> str:
    answer = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return answer.stdout.strip() or "unknown"


def _machine() -> str:
    return f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores"


def _plot(name: str, results: list[Result], target: Path) -> None:
    """A place a case: the median, its spread and the target, each on its own scale."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    columns = 1 + (len(results) - 1) // _MOST_ROWS
    rows = -(-len(results) // columns)
    size = (8 * columns, 0.9 * rows + 0.6)
    figure, places = plt.subplots(rows, columns, figsize=size, squeeze=False)
    for axis in places.T.flat[len(results) :]:
        axis.set_visible(False)
    for result, axis in zip(results, places.T.flat, strict=False):
        low, high = result.spread
        axis.barh([0], [result.value], height=0.5, color="#3b6ea5")
        axis.plot([low, high], [0, 0], color="black", linewidth=1)
        if result.target is not None:
            axis.axvline(result.target, color="#c0392b", linestyle="--", linewidth=1)
        axis.set_yticks([])
        seen = [low, high, result.value, result.target or 0.0]
        axis.set_xlim(min(0.0, *seen), 1.05 * max(seen) or 1.0)
        for side in ("top", "right", "left"):
            axis.spines[side].set_visible(False)
        axis.set_title(
            f"{result.name}: {result.value:.3g} {result.unit} ({result.better} is better)",
            fontsize=8,
            loc="left",
        )
        axis.tick_params(labelsize=7)
    figure.tight_layout()
    figure.savefig(target, dpi=120)
    plt.close(figure)
