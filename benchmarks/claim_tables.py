"""Tables of the documents that no single audit makes: each measured by one function here."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks.checkpoints import real_model
from benchmarks.claim_settings import SETTINGS
from benchmarks.correlations import correlations
from benchmarks.drifting import drifted
from benchmarks.frequencies import long_traffic
from benchmarks.harness import Effort
from triparty.developer.audit import Attack, Knowledge, set_scene
from triparty.developer.audit.attacks import Alignment, Frequency, Linking, Rotation
from triparty.developer.audit.compare import compare
from triparty.developer.audit.deciphering import Counts, by_rank
from triparty.developer.audit.knowledge import distinct
from triparty.developer.audit.levels import Level
from triparty.developer.audit.plausible import drawn_texts
from triparty.developer.audit.stage import plain_logits
from triparty.developer.protect import Choices, protect
from triparty.developer.stock import load_model

Line = Mapping[str, Any]

_ROWS = (10_000, 100_000, 1_000_000)
_DRIFTS = (0.0, 0.1, 0.2, 0.3)
_NOISES = (0.01, 0.03, 0.1, 0.3)
_SEED = 1  # of keys


def counting() -> list[Line]:
    """What counting reads of long traffic (K0): share of rows, by how much there is."""
    lines = []
    for rows in _ROWS:
        alike, right = long_traffic(rows, same=True)
        elsewhere, _ = long_traffic(rows, same=False)
        symbols = distinct(alike.rows)
        ranks = np.full(int(symbols.max()) + 1, -1)
        seen = Counts.of([symbols])
        ranks[seen.symbols] = by_rank(seen, Counts.of(alike.language))
        lines.append(
            {
                "rows": rows,
                "same": _right(Frequency().mount(alike).token_ids, right),
                "other": _right(Frequency().mount(elsewhere).token_ids, right),
                "single": _right(ranks[symbols], right),
            }
        )
    return lines


def _right(found: Any, right: Any) -> float:
    tokens = np.concatenate(found) if isinstance(found, tuple) else found
    return round(float((tokens == right).mean()), 3)


def distance_correlations() -> list[Line]:
    """Szekely's distance correlation between plain and keyed numbers: medians of 7 keys."""
    return [
        {
            "name": case.name,
            "median": round(median(case.measure(Effort(quick=False))), 3),
            "reference": case.reference,
        }
        for case in correlations
    ]


def drift() -> list[Line]:
    """Share of the vocabulary that the key opens which a base gives of what drifted from it."""
    attacks: Mapping[str, Attack] = {"permutation": Alignment(), "orthogonal": Rotation()}
    lines = []
    for share in _DRIFTS:
        found = {}
        for setting in SETTINGS:
            for scheme in setting.schemes:
                with tempfile.TemporaryDirectory() as name:
                    base, out = setting.source, Path(name) / "out"
                    private = str(drifted(base, Path(name) / "private", share))
                    protect(private, out, choices=Choices.of(scheme=scheme), seed=_SEED)
                    scene = set_scene(private, out, base=base)
                    claim = attacks[scheme].mount(scene.knowledge.at(Level.K3))
                    found[f"{setting.model}, {setting.scheme_of(scheme)}"] = round(
                        claim.score(scene.truth), 3
                    )
        lines.append({"drift": share, "found": found})
    return lines


def instances() -> list[Line]:
    """Two instances of one model, each with noise of its own on its weights: still linked?"""
    lines = []
    for noise in _NOISES:
        line: dict[str, Any] = {"noise": noise}
        for model in ("stories260K", "gpt2-capp"):
            for scheme in ("permutation", "orthogonal"):
                line[f"{model}, {scheme}"] = round(_linked(model, scheme, noise), 3)
            line[f"{model}, top-1"] = round(_agreement(model, noise), 3)
        lines.append(line)
    return lines


def _linked(model: str, scheme: str, noise: float) -> float:
    """Share of one instance's vocabulary that the other one's rows and the found key open."""
    views, scenes = [], []
    with tempfile.TemporaryDirectory() as name:
        for seed in (1, 2):
            source = drifted(real_model(model), Path(name) / f"{seed}", noise, seed=seed)
            out = Path(name) / f"out-{seed}"
            protect(str(source), out, choices=Choices.of(scheme=scheme), seed=seed)
            scenes.append(set_scene(str(source), out))
            views.append(scenes[-1].knowledge.hosted)
        claim = Linking().mount(Knowledge((), hosted=views[0], other=views[1]))
        return claim.score(replace(scenes[0].truth, other_key=scenes[1].truth.key))


def _agreement(model: str, noise: float) -> float:
    """Share of positions at which a noisy instance still says what the model says."""
    plain = load_model(real_model(model))
    texts = drawn_texts(plain, 24, 128, seed=3)
    with tempfile.TemporaryDirectory() as name:
        noisy = load_model(drifted(real_model(model), Path(name) / "noisy", noise, seed=1))
        said = [plain_logits(each, texts).argmax(axis=-1) for each in (plain, noisy)]
    return float((said[0] == said[1]).mean())


def mitigations() -> Line:
    """Every mitigation of `audit --compare` on stories260K."""
    found: Line = _rounded(asdict(compare(real_model("stories260K"))))
    return found


def _rounded(figures: Any) -> Any:
    """The same with every share and ratio to four digits behind the point."""
    if isinstance(figures, dict):
        return {name: _rounded(value) for name, value in figures.items()}
    if isinstance(figures, list | tuple):
        return [_rounded(value) for value in figures]
    return round(figures, 4) if isinstance(figures, float) else figures


TABLES: Mapping[str, Callable[[], Any]] = {
    "counting": counting,
    "correlations": distance_correlations,
    "drift": drift,
    "instances": instances,
    "mitigations": mitigations,
}
