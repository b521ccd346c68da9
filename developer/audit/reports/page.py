"""An audit as one HTML page that needs nothing else: no script, no font, no network."""

from __future__ import annotations

from collections.abc import Iterable
from xml.etree.ElementTree import Element

from triparty.developer.audit.attack import Findings, Unmounted
from triparty.developer.audit.comparison import COLUMNS, Comparison, cells, notes
from triparty.developer.audit.levels import Level
from triparty.developer.audit.report import Report, finds, of_what, strongest, succeeded
from triparty.developer.audit.reports.citations import pieces
from triparty.developer.audit.reports.markup import Child, element, rendered
from triparty.developer.audit.reports.style import CSS
from triparty.developer.audit.reports.wording import (
    ATTACKERS,
    NOT_ENCRYPTION,
    NOTHING,
    assumptions,
    duration,
    number,
    percent,
    recovered,
    warnings,
)

TITLE = "What the cloud can still learn"
_MUCH = 0.1  # of what an attack is after: the share from which a figure stands out


def page(report: Report) -> str:
    """The whole document."""
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("title", f"{TITLE}: {report.subject.out}"),
        element("style", CSS),
    )
    return rendered(element("html", head, element("body", *_body(report)), lang="en"))


def _body(report: Report) -> Iterable[Element]:
    what = report.subject
    yield element(
        "header",
        element("h1", TITLE),
        element(
            "p",
            f"Attacks mounted on {what.out}, a {what.architecture} protected with the scheme "
            f"{what.scheme}, and what each recovered.",
            class_="soft",
        ),
        *(
            element("p", text, class_="alarm", role="alert")
            for text in warnings(report.exposure)
        ),
    )
    yield element("main", *_parts(report))
    yield element(
        "footer",
        element("p", NOT_ENCRYPTION),
        element("p", f"triparty {report.version}, {report.at:%d %B %Y, %H:%M} UTC"),
    )


def _parts(report: Report) -> Iterable[Element]:
    if report.audit.findings:
        yield _section("Who can read what", *_summary(report))
    for level in report.levels:
        if report.of_level(level):
            yield _section(f"{level}: {ATTACKERS[level]}", *_level(report, level))
    if report.audit.unmounted:
        yield _section("Not mounted", _unmounted(report.audit.unmounted))
    if report.comparison is not None:
        yield _section("What would help, and what it costs", *_compared(report.comparison))
    yield _section("What was attacked", _subject(report))


def _section(heading: str, *children: Child) -> Element:
    return element("section", element("h2", heading), *children)


def _summary(report: Report) -> Iterable[Child]:
    """For each attacker, the most that any attack open to them recovered."""
    nouns = list(dict.fromkeys(finds(found) for found in report.audit.findings))
    nouns = [noun for noun in nouns if noun != "what shows"]
    rows = [
        element(
            "tr",
            element("th", f"{level}: {ATTACKERS[level]}", scope="row"),
            *(_most(report, noun, level) for noun in nouns),
        )
        for level in report.levels
    ]
    caption = "The most that an attacker of each level recovered, by what the attacks find."
    yield _table(caption, ["attacker", *nouns], rows)
    if not report.successes:
        yield element("p", NOTHING)


def _most(report: Report, noun: str, level: Level) -> Element:
    found = strongest(report.audit.findings, noun, level)
    if found is None:
        return element("td", element("span", "not tried", class_="soft"), data_label=noun)
    name = element("span", found.name, class_="name")
    return element("td", element("span", _share(found), " ", name), data_label=noun)


def _share(found: Findings) -> Element:
    much = succeeded(found) and found.recovered >= _MUCH
    return element("span", recovered(found), class_="much" if much else "")


def _level(report: Report, level: Level) -> Iterable[Child]:
    """The attacks of one level: a line each, then what those that succeeded mean."""
    findings = report.of_level(level)
    headings = ["attack", "finds", "plot", "recovered", "control", "time", "rows"]
    yield _table(_legend(), headings, [_line(found) for found in findings])
    for found in report.successes:
        if found.level == level:
            yield _story(found)


def _legend() -> Element:
    return element(
        "span",
        element("span", class_="key red"),
        "recovered",
        element("span", class_="key"),
        "control: the same attack where there is nothing to find",
    )


def _line(found: Findings) -> Element:
    return element(
        "tr",
        element("th", found.name, scope="row"),
        element("td", finds(found), data_label="finds"),
        element("td", bars(found), class_="bar"),
        element("td", _share(found), class_="figure", data_label="recovered"),
        element("td", percent(found.control), class_="figure", data_label="control"),
        element("td", duration(found.seconds), class_="figure", data_label="time"),
        element("td", f"{found.rows:,}", class_="figure", data_label="rows"),
    )


def bars(found: Findings) -> Element:
    """What an attack recovered, as a plot with its control below."""
    said = (
        f"{found.name} recovered {percent(found.recovered)}, control {percent(found.control)}"
    )
    return element(
        "svg",
        element("title", said),
        *_bar(found.recovered, "hit", top=0, height=11),
        *_bar(found.control, "control", top=13, height=5),
        viewBox="0 0 100 18",
        preserveAspectRatio="none",
        role="img",
        aria_label=said,
    )


def _bar(share: float, kind: str, *, top: int, height: int) -> Iterable[Element]:
    for name, width in (("track", 100.0), (kind, 100 * min(max(share, 0.0), 1.0))):
        yield element(
            "rect", class_=name, x="0", y=str(top), width=f"{width:.2f}", height=str(height)
        )


def _story(found: Findings) -> Element:
    """What a success means, what would change it, whose idea it is."""
    facts: list[tuple[str, tuple[Child, ...]]] = [
        ("it means", tuple(_prose(found.means))),
        ("what would change it", tuple(_prose(found.remedy))),
        ("source", tuple(_linked(found.cites))),
    ]
    if found.figures:
        seen = "; ".join(f"{name} {number(value)}" for name, value in found.figures.items())
        facts.insert(2, ("what was seen", (f"{seen}.",)))
    heading = f"{found.name}: {recovered(found)} {of_what(found)}"
    return element("div", element("h3", heading), _facts(facts), class_="story")


def _prose(text: str) -> Iterable[Child]:
    """Words with what stands between backticks as code."""
    for i, piece in enumerate(text.split("`")):
        yield element("code", piece) if i % 2 else piece


def _linked(citation: str) -> Iterable[Child]:
    for text, address in pieces(citation):
        yield text if address is None else element("a", text, href=address)


def _unmounted(attacks: Iterable[Unmounted]) -> Element:
    rows = [
        element(
            "tr",
            element("th", attack.name, scope="row"),
            element("td", attack.level, data_label="level"),
            element("td", attack.reason),
        )
        for attack in attacks
    ]
    return _table("Attacks that were not tried.", ["attack", "level", "because"], rows)


def _compared(comparison: Comparison) -> Iterable[Element]:
    """Every mitigation, measured."""
    lines = [cells(line) for line in comparison.measured]
    rows = [
        element(
            "tr",
            element("th", first, scope="row"),
            *(
                element("td", text, class_="figure", data_label=name)
                for name, text in zip(COLUMNS[1:], rest, strict=True)
            ),
        )
        for first, *rest in lines
    ]
    caption = "Mitigations, each measured on this model with attackers who know of it."
    table = _table(caption, list(COLUMNS), rows, figures=frozenset(COLUMNS[1:]))
    yield element("div", table, class_="wide")
    yield from (element("p", note, class_="soft") for note in notes(comparison))


def _subject(report: Report) -> Element:
    what = report.subject
    facts = {
        "original": what.source,
        "protected": what.out,
        "model": f"{what.architecture}, family {what.family}",
        "scheme": what.scheme,
        "interface": what.interface,
        "width of a row": f"{what.width:,}",
        "vocabulary": f"{what.vocabulary:,}",
        "traffic": f"{what.rows:,} rows in {what.requests:,} requests, {what.traffic}",
        "resting on": " ".join(assumptions(report)),
    }
    return _facts([(name, (text,)) for name, text in facts.items() if text])


def _facts(facts: Iterable[tuple[str, tuple[Child, ...]]]) -> Element:
    return element(
        "dl",
        *(
            part
            for name, children in facts
            for part in (element("dt", name), element("dd", *children))
        ),
    )


def _table(
    caption: str | Element,
    headings: list[str],
    rows: list[Element],
    figures: frozenset[str] = frozenset({"recovered", "control", "time", "rows"}),
) -> Element:
    return element(
        "table",
        element("caption", caption),
        element(
            "thead",
            element(
                "tr",
                *(
                    element("th", name, scope="col", class_="figure" if name in figures else "")
                    for name in headings
                ),
            ),
        ),
        element("tbody", *rows),
    )
