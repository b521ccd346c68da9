"""Searches for a way to serve a model under which attackers of K2 learn little, and its price.

`python -m benchmarks.mitigations [--quick]` tries a grid of noise, rows under one key, training
under noise, a private table and decoys on one set of texts. It prints what each leaks at each
number of known rows beside its accuracy, and measures those again on other texts that leak no
more than the bound: nothing is chosen by what it is judged by. What it found is kept in
`docs/figures/search.json`, from which the documents are written. The short form has fewer
rows and fewer texts to judge accuracy on, and as many requests among decoys.

Rows under one key count over all instances that one cloud holds: instances of one model are
linked by their weights, so another key is a fresh start only where that link is broken.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

from benchmarks.checkpoints import real_model
from benchmarks.harness import ROOT
from triparty.common.decoys import DecoyKind
from triparty.developer.audit.attack import Attack
from triparty.developer.audit.attacks import Inversion
from triparty.developer.audit.attacks.noisy_rows import NoisyRows
from triparty.developer.audit.attacks.rows_again import RowsAgain
from triparty.developer.audit.compare import TOKEN_ATTACKS, compare, leakage_of
from triparty.developer.audit.comparison import Comparison, table
from triparty.developer.audit.mitigations import ORTHOGONAL, Mitigation
from triparty.developer.audit.scene import Scene
from triparty.developer.audit.stage import QUICK, Effort, Stage, plain_logits, texts_of
from triparty.developer.stock import load_model

BOUND = 0.10
KNOWN = (1, 16, 256)
ROWS = (128, 1024, 10_240)

SHORT = replace(QUICK, tuning=300, requests=200, decoys=4000)
FIGURES = ROOT / "docs" / "figures" / "search.json"
MODEL = "stories260K"

_AIDED = [
    attack for attack in TOKEN_ATTACKS if isinstance(attack, Inversion | RowsAgain | NoisyRows)
]
_UNAIDED = [attack for attack in TOKEN_ATTACKS if attack not in _AIDED]
"""What known rows help, and what they do not."""

HEADLESS = {**ORTHOGONAL, "head": "device"}


@dataclass(frozen=True)
class Tried:
    """One point of the grid.

    Attributes:
        mitigation: what was tried.
        known: distinct tokens whose rows the attacker knows.
        attributed: share of tokens that the best attacker reads and knows to be the user's.
        agreement: share of positions with the plain model's likeliest token.
        perplexity_ratio: perplexity over the plain model's.
    """

    mitigation: Mitigation
    known: int
    attributed: float
    agreement: float
    perplexity_ratio: float


def grid(rows: Sequence[int]) -> Iterator[Mitigation]:
    """What is tried, the head always on the device: a hosted one shows the table's shape."""
    for tuned_under in (0.0, 1.0):
        for noise in (0.0, 0.3, 0.5, 1.0):
            if tuned_under and noise < tuned_under:
                continue
            for count in rows:
                training = ", tuned" if tuned_under else ""
                yield Mitigation(
                    f"noise {noise:.0%}{training}, {count:,} rows a key",
                    HEADLESS,
                    noise=noise,
                    tuned_under=tuned_under,
                    rows_per_key=count,
                )
    for count in rows:
        yield Mitigation(
            f"private table, {count:,} rows a key",
            HEADLESS,
            private_table=True,
            rows_per_key=count,
        )
    for decoys in (9, 14, 19):
        yield Mitigation(f"{decoys} decoys ({DecoyKind.TEXT})", decoys=decoys)


def search(
    source: Path,
    effort: Effort,
    mitigations: Sequence[Mitigation],
    known: Sequence[int] = KNOWN,
) -> list[Tried]:
    """Every mitigation at every number of known rows; among decoys at the last alone.

    Args:
        source: folder of a causal language model.
        effort: how much is measured.
        mitigations: to be tried.
        known: distinct tokens whose rows the attacker knows.
    """
    plain = load_model(source)
    texts = texts_of(plain, effort)
    logits = plain_logits(plain, texts.judged)
    found: list[Tried] = []
    with tempfile.TemporaryDirectory() as folder:
        alike = groupby(mitigations, lambda one: replace(one, name="", rows_per_key=None))
        for number, (_, group) in enumerate(alike):
            kinds = list(group)
            stage = Stage(source, plain, kinds[0], effort, texts, Path(folder) / str(number))
            named = max(stage.named().values(), default=1.0)
            agreement, ratio = stage.accuracy(logits)
            for mitigation in kinds:
                rows = mitigation.rows_per_key
                unaided = _read(stage.scene(known=0, rows=rows), _UNAIDED)
                for count in known[-1:] if mitigation.decoys else known:
                    clear = max(unaided, _read(stage.scene(known=count, rows=rows), _AIDED))
                    found.append(Tried(mitigation, count, clear * named, agreement, ratio))
                    print(line(found[-1]), flush=True)
    return found


def _read(scene: Scene, attacks: Sequence[Attack]) -> float:
    """Share of tokens that the best of some attacks reads."""
    by_level = leakage_of(scene, attacks)
    return max((share for by in by_level.values() for share in by.values()), default=0.0)


def line(tried: Tried) -> str:
    """A line of the search's table."""
    return (
        f"{tried.mitigation.name:38}  known {tried.known:4}  attributed "
        f"{tried.attributed:6.1%}  top-1 {tried.agreement:6.1%}  perplexity "
        f"x{tried.perplexity_ratio:.2f}"
    )


def frontier(found: Sequence[Tried]) -> list[Tried]:
    """The points that no other one beats in both leakage and accuracy, at each knowledge."""
    return [
        one
        for one in found
        if not any(
            other.known == one.known
            and other.attributed <= one.attributed
            and other.agreement >= one.agreement
            and (other.attributed, other.agreement) != (one.attributed, one.agreement)
            for other in found
        )
    ]


def within(found: Sequence[Tried], bound: float = BOUND) -> list[Mitigation]:
    """The mitigations that leak no more than the bound, however much was known."""
    worst: dict[str, float] = {}
    for tried in found:
        name = tried.mitigation.name
        worst[name] = max(worst.get(name, 0.0), tried.attributed)
    mitigations = {tried.mitigation.name: tried.mitigation for tried in found}
    return [mitigations[name] for name, share in worst.items() if share <= bound]


def figures_of(
    found: Sequence[Tried], judged: Comparison | None, effort: Effort
) -> dict[str, Any]:
    """What is kept: every point of the search, and what was judged on other texts."""
    return {
        "model": MODEL,
        "bound": BOUND,
        "effort": asdict(effort),
        "tried": [
            {
                "name": one.mitigation.name,
                "known": one.known,
                "attributed": round(one.attributed, 3),
                "agreement": round(one.agreement, 3),
                "perplexity_ratio": round(one.perplexity_ratio, 2),
            }
            for one in found
        ],
        "judged": [
            {
                "name": one.name,
                "clear": round(one.clear, 3),
                "attributed": round(one.attributed, 3),
                "agreement": round(one.agreement, 3),
                "perplexity_ratio": round(one.perplexity_ratio, 2),
                "device_ratio": round(one.device_ratio, 1),
                "cloud_ratio": round(one.cloud_ratio, 1),
                "bytes_ratio": round(one.bytes_ratio, 1),
            }
            for one in (() if judged is None else judged.measured)
        ],
    }


def main() -> None:
    """Searches, then judges on other texts what kept the bound against all that was known."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a short form, to see it work")
    quick = parser.parse_args().quick
    effort = SHORT if quick else Effort(most=max(ROWS))
    source = real_model(MODEL)
    found = search(source, effort, list(grid([rows for rows in ROWS if rows <= effort.most])))
    print("\nfrontier of leakage and accuracy")
    for tried in frontier(found):
        print(line(tried))
    print(f"\nat most {BOUND:.0%} in the search, judged on other texts")
    judged = None
    if kept := within(found):
        other = replace(effort, seed=effort.seed + 1, known=max(KNOWN))
        judged = compare(source, mitigations=kept, effort=other)
    print("nothing" if judged is None else table(judged))
    figures = figures_of(found, judged, effort)
    FIGURES.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
