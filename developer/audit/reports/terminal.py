"""An audit in a terminal: a table by level of attacker, then what it means."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from textwrap import fill

from triparty.developer.audit.attack import Findings
from triparty.developer.audit.report import Report, finds, of_what
from triparty.developer.audit.reports.wording import (
    ATTACKERS,
    NOT_ENCRYPTION,
    NOTHING,
    assumptions,
    duration,
    number,
    percent,
    recovered,
    subject,
    warnings,
)

WIDTH = 100

_HEADINGS = ("attack", "finds", "recovered", "control", "time", "rows")
_LEAST = (30, 12, 9, 9, 9, 10)


def lines(report: Report) -> list[str]:
    """The whole report, no line wider than `WIDTH` (but for a path that has no gap)."""
    return [
        *_filled(subject(report)),
        *(line for text in assumptions(report) for line in _filled(text)),
        "",
        *_table(report),
        "",
        *_meaning(report),
        *_unmounted(report),
        *_filled(NOT_ENCRYPTION),
    ]


def alarm(report: Report) -> list[str]:
    """The warnings, framed."""
    said = [
        line for text in warnings(report.exposure) for line in _filled(text, "!!! ", "!!! ")
    ]
    return ["!" * WIDTH, *said, "!" * WIDTH] if said else []


def _table(report: Report) -> Iterator[str]:
    """A line an attack, under the attacker who can mount it."""
    cells = {
        level: [_cells(found) for found in report.of_level(level)] for level in report.levels
    }
    every = [_HEADINGS, *(row for rows in cells.values() for row in rows)]
    widths = [max(least, *(len(row[i]) for row in every)) for i, least in enumerate(_LEAST)]
    yield _row(_HEADINGS, widths)
    for level, rows in cells.items():
        yield f"{level}  {ATTACKERS[level]}"
        for row in rows:
            yield _row(row, widths)
        if not rows:
            yield "  (none of its attacks could be mounted)"


def _cells(found: Findings) -> tuple[str, ...]:
    return (
        found.name,
        finds(found),
        recovered(found),
        percent(found.control),
        duration(found.seconds),
        f"{found.rows:,}",
    )


def _row(cells: Sequence[str], widths: Sequence[int]) -> str:
    """Two columns of words to the left, figures to the right."""
    aligned = [
        cell.ljust(width) if i < 2 else cell.rjust(width)
        for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
    ]
    return "  " + "  ".join(aligned).rstrip()


def _meaning(report: Report) -> Iterator[str]:
    """What each success means and what would change it; nothing of what failed."""
    if report.audit.findings and not report.successes:
        yield from [*_filled(NOTHING), ""]
    for found in report.successes:
        yield f"{found.name} ({found.level}): {recovered(found)} {of_what(found)}"
        yield from _filled(found.means, "  what it means      ", " " * 21)
        yield from _filled(found.remedy, "  what would change  ", " " * 21)
        if found.figures:
            seen = "; ".join(f"{name} {number(n)}" for name, n in found.figures.items())
            yield from _filled(f"{seen}.", "  what was seen      ", " " * 21)
        yield from _filled(found.cites, "  source             ", " " * 21)
        yield ""


def _unmounted(report: Report) -> Iterator[str]:
    if not report.audit.unmounted:
        return
    yield "Not mounted:"
    for attack in report.audit.unmounted:
        yield from _filled(f"{attack.name} ({attack.level}): {attack.reason}", "  ", "    ")
    yield ""


def _filled(text: str, first: str = "", rest: str = "  ") -> list[str]:
    return fill(
        text,
        WIDTH,
        initial_indent=first,
        subsequent_indent=rest,
        break_long_words=False,
        break_on_hyphens=False,
    ).splitlines()
