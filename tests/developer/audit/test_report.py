"""What people and scripts are told of an audit."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from html.parser import HTMLParser
from typing import Any

import pytest

from triparty.developer.audit import Audit, Findings, Level
from triparty.developer.audit.attack import Unmounted
from triparty.developer.audit.comparison import Comparison, Measured
from triparty.developer.audit.exposure import Exposure
from triparty.developer.audit.report import Report, document, strongest, succeeded
from triparty.developer.audit.reports import alarm, lines, page
from triparty.developer.audit.reports.citations import pieces
from triparty.developer.audit.subject import Subject

SUBJECT = Subject(
    source="original",
    out="protected",
    family="llama",
    architecture="LlamaForCausalLM",
    scheme="permutation",
    interface="embeddings",
    width=64,
    vocabulary=512,
    requests=680,
    rows=1322,
)
SORTED = Findings(
    name="sorted-rows",
    level="K2",
    target="tokens",
    recovered=0.987,
    seconds=0.25,
    rows=1322,
    matched=1.0,
    checked=True,
    control=0.004,
    cites="Thomas et al., arXiv:2505.18332",
    means="Who has the table reads every question.",
    remedy="Another scheme.",
)
FAILED = replace(
    SORTED, name="norms", recovered=0.004, means="Never to be said.", remedy="Nor this."
)
SHAPE = replace(
    SORTED, name="shape", level="K0", recovered=0.3, control=0.0, figures={"mean length": 3.25}
)
KEY = replace(SORTED, name="alignment", level="K3", target="key", recovered=1.0, seconds=130.0)
ABSENT = Unmounted("linking", "K0", "there is no second instance")


def report(*findings: Findings, **words: Any) -> Report:
    return Report(
        SUBJECT,
        Audit(findings, words.get("unmounted", ())),
        words.get("exposure", Exposure()),
        version="1.2.3",
        at=datetime(2031, 5, 4, 3, 2, 1, tzinfo=UTC),
    )


WHOLE = report(SORTED, FAILED, SHAPE, KEY, unmounted=(ABSENT,))


def test_the_document_has_what_scripts_rely_on() -> None:
    found = json.loads(json.dumps(document(WHOLE)))
    assert [one["name"] for one in found["attacks"]] == [
        "sorted-rows", "norms", "shape", "alignment",
    ]  # fmt: skip
    for name in ("name", "level", "target", "recovered", "seconds"):
        assert name in found["attacks"][0]
    assert found["public_base"] is None
    assert found["unmounted"] == [vars(ABSENT)]
    assert found["subject"]["scheme"] == "permutation"
    assert (found["version"], found["at"]) == ("1.2.3", "2031-05-04T03:02:01+00:00")
    recognised = document(report(exposure=Exposure(public_base="some/base")))
    assert recognised["public_base"] == "some/base"


def test_an_attack_succeeds_only_beyond_its_control() -> None:
    assert succeeded(SORTED)
    assert not succeeded(FAILED)
    assert not succeeded(replace(SORTED, control=SORTED.recovered))
    assert not succeeded(replace(SORTED, recovered=0.04, control=0.0))
    assert succeeded(replace(SORTED, recovered=0.06, control=0.0))


def test_a_higher_level_can_do_what_a_lower_one_can() -> None:
    found = WHOLE.audit.findings
    assert strongest(found, "tokens", "K0") == SHAPE
    assert strongest(found, "tokens", "K1") == SHAPE
    assert strongest(found, "tokens", "K2") == SORTED
    assert strongest(found, "tokens", "K4") == SORTED
    assert strongest(found, "key", "K2") is None
    assert strongest(found, "key", "K3") == KEY


def test_what_was_found_is_not_called_more_than_it_is() -> None:
    linked = replace(KEY, name="linking", level="K0", claim="Relation")
    shown = replace(KEY, name="shape", level="K0", claim="Seen")
    assert strongest([linked, shown], "key", "K0") is None
    assert strongest([linked, shown], "relative key", "K0") == linked
    told = report(linked, shown)
    assert "linking (K0): 100.0 % of the relative key" in lines(told)
    summary = (
        visible(page(told)).partition("Who can read what")[2].partition("K0: the cloud")[0]
    )
    assert "relative key" in summary
    assert "what shows" not in summary


LINE = Measured(
    name="9 decoys <text>",
    leakage={Level.K0: {"frequency": 0.25}, Level.K2: {"gram": 1.0, "norms": 0.5}},
    clear=1.0,
    named={"likelihood": 0.1, "order": 0.2},
    attributed=0.2,
    agreement=0.987,
    perplexity_ratio=1.25,
    device_ratio=9.5,
    cloud_ratio=10.25,
    bytes_ratio=10.0,
    seconds_per_instance=0.5,
    bytes_per_instance=2_500_000,
    rows=1024,
)
COMPARED = Comparison((LINE,), 640, 16, 0.05, {"expanded": "norms are layer norms"})


def test_a_comparison_is_on_the_page_and_in_the_document() -> None:
    told = replace(WHOLE, comparison=COMPARED)
    said = visible(page(told))
    assert "What would help, and what it costs" in said
    for figure in ("9 decoys <text>", "25.0%", "100.0%", "20.0%", "98.7%", "x1.250", "x10.00"):
        assert figure in said
    assert "expanded: not for this model: norms are layer norms" in said
    assert "over 640 positions" in said
    found = json.loads(json.dumps(document(told)))["comparison"]
    assert found["measured"][0]["leakage"]["K2"] == {"gram": 1.0, "norms": 0.5}
    assert found["refused"] == COMPARED.refused


def test_without_a_comparison_nothing_is_said_of_one() -> None:
    assert "what it costs" not in visible(page(WHOLE))
    assert "comparison" not in document(WHOLE)


def test_the_table_is_grouped_by_attacker() -> None:
    said = lines(WHOLE)
    starts = [line.split()[0] for line in said if line.startswith(("K", "  sorted", "  norms"))]
    assert starts == ["K0", "K2", "sorted-rows", "norms", "K3"]
    (row,) = [line.split() for line in said if line.startswith("  sorted-rows  ")]
    assert row == ["sorted-rows", "tokens", "98.7", "%", "0.4", "%", "0.25", "s", "1,322"]


def test_what_it_means_is_said_of_successes_alone() -> None:
    said = " ".join(" ".join(lines(WHOLE)).split())
    assert said.count("Who has the table reads every question.") == 3
    assert "Never to be said." not in said
    assert "Nor this." not in said
    assert "mean length 3.25" in said
    assert "linking (K0): there is no second instance" in said
    assert "No attack recovered clearly more" not in said
    assert "No attack recovered clearly more" in " ".join(lines(report(FAILED)))


def test_lines_fit_a_terminal() -> None:
    long = replace(SORTED, means="word " * 90 + "end.", name="a-name-as-long-as-they-come-here")
    warned = report(
        long, exposure=Exposure("base " * 30, "table " * 30, 0.9), unmounted=(ABSENT,)
    )
    assert max(map(len, [*lines(warned), *alarm(warned)])) <= 100


@pytest.mark.parametrize("found", [WHOLE, report(FAILED), report(unmounted=(ABSENT,))])
def test_words_are_honest(found: Report) -> None:
    for text in (" ".join(" ".join(lines(found)).split()), visible(page(found))):
        assert "re-keying, not encryption" in text
        assert "secur" not in text.lower()


def test_a_public_base_is_loud() -> None:
    quiet = report(SORTED)
    assert alarm(quiet) == []
    assert "alert" not in page(quiet)
    for exposure, words in (
        (Exposure(public_base="the base"), "PUBLIC BASE RECOGNISED"),
        (Exposure(public_table="the base", table_share=0.93), "TABLE IS PUBLIC: 93.0 %"),
        (Exposure(declared_base="the base"), "NAMES A BASE: the base"),
        (Exposure(shape_of="the base"), "THE SHAPE OF A PUBLIC MODEL: the base"),
    ):
        loud = report(SORTED, exposure=exposure)
        assert words in " ".join(" ".join(alarm(loud)).split())
        assert 'role="alert"' in page(loud)
        assert words in visible(page(loud))


def test_what_nobody_could_check_is_marked() -> None:
    unchecked = report(replace(SORTED, checked=False))
    assert "98.7 % ?" in " ".join(" ".join(lines(unchecked)).split())
    assert "98.7 % ?" in visible(page(unchecked))
    assert "not checked" in visible(page(unchecked))
    assert "not checked" not in visible(page(WHOLE))


class Reader(HTMLParser):
    """What a reader of the page sees, and what the page asks for."""

    def __init__(self) -> None:
        super().__init__()
        self.text: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self._hidden = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._hidden = tag == "style"

    def handle_endtag(self, tag: str) -> None:
        self._hidden = False

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            self.text.append(data)


def read(html: str) -> Reader:
    reader = Reader()
    reader.feed(html)
    return reader


def visible(html: str) -> str:
    return " ".join(" ".join(read(html).text).split())


def attributes(html: str, tag: str) -> Iterator[dict[str, str | None]]:
    return (given for name, given in read(html).tags if name == tag)


def test_the_page_stands_alone() -> None:
    html = page(WHOLE)
    assert html.startswith("<!doctype html>")
    assert "url(" not in html
    assert not {"script", "link", "img", "iframe"} & {tag for tag, _ in read(html).tags}
    links = [given["href"] for given in attributes(html, "a")]
    assert links == ["https://arxiv.org/abs/2505.18332"] * len(WHOLE.successes)
    for words in ("04 May 2031", "1.2.3", "LlamaForCausalLM", "98.7 %", "Another scheme."):
        assert words in visible(html)
    assert "Never to be said." not in html


def test_plots_have_their_figures_and_their_words() -> None:
    html = page(WHOLE)
    plots = list(attributes(html, "svg"))
    assert len(plots) == 4
    assert all(given["role"] == "img" for given in plots)
    assert "sorted-rows recovered 98.7 %, control 0.4 %" in {p["aria-label"] for p in plots}
    hits = [given["width"] for given in attributes(html, "rect") if given["class"] == "hit"]
    controls = [g["width"] for g in attributes(html, "rect") if g["class"] == "control"]
    assert hits == ["30.00", "98.70", "0.40", "100.00"]
    assert controls == ["0.00", "0.40", "0.40", "0.40"]


def test_tables_have_headers() -> None:
    html = page(WHOLE)
    tables = len(list(attributes(html, "table")))
    assert tables == len(list(attributes(html, "caption"))) == 5
    assert all(given.get("scope") in ("col", "row") for given in attributes(html, "th"))
    assert [given["lang"] for given in attributes(html, "html")] == ["en"]


def test_whatever_is_in_a_name_stays_text() -> None:
    evil = "<script>alert('x')</script>\"&\x1b[31m"
    named = replace(SORTED, name=evil, means=evil, remedy=evil, cites=evil, figures={evil: 1.0})
    told = replace(
        report(named, unmounted=(Unmounted(evil, "K1", evil),)),
        subject=replace(SUBJECT, source=evil, out=evil, architecture=evil, traffic=evil),
        exposure=Exposure(evil, evil, 0.7, evil),
    )
    html = page(told)
    assert "script" not in {tag for tag, _ in read(html).tags}
    assert "\x1b" not in html
    assert "<script>alert('x')</script>\"&" in visible(html)


def test_citations_lead_to_what_they_cite() -> None:
    def addresses(text: str) -> list[str | None]:
        assert "".join(piece for piece, _ in pieces(text)) == text
        return [address for _, address in pieces(text) if address]

    assert addresses("Thomas et al., arXiv:2505.18332") == ["https://arxiv.org/abs/2505.18332"]
    assert addresses("thesis 4.4.3; STIP, ePrint 2023/1763, and arXiv 2510.15511.") == [
        "https://eprint.iacr.org/2023/1763",
        "https://arxiv.org/abs/2510.15511",
    ]
    assert addresses("doi:10.1007/BF02289451, Schönemann") == [
        "https://doi.org/10.1007/BF02289451"
    ]
    assert addresses("a thesis of 2023, section 4.4.3") == []
