"""The figures of the documents: measured, kept in one file, written into the texts.

    python -m benchmarks.claims          runs the audits, then rewrites the texts
    python -m benchmarks.claims --models stories260K    one model again, and no table
    python -m benchmarks.claims --tables drift  one of the other tables again, and no model
    python -m benchmarks.claims --texts  rewrites the texts from the files alone
    python -m benchmarks.mitigations     searches (longest), and keeps what it found

The files are in `docs/figures`: `audit.json` of the attacks, `tables.json` of what no single
audit measures, `search.json` of the search. Tests compare the texts with them, and measure
the attacks again.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.claim_settings import SETTINGS, Setting
from benchmarks.claim_tables import TABLES
from benchmarks.claim_texts import rewritten
from benchmarks.harness import ROOT, BenchError
from benchmarks.mitigations import FIGURES as SEARCHED
from triparty.developer.audit import ATTACKS, Attack, Audit, audit, set_scene
from triparty.developer.audit.report import finds
from triparty.developer.protect import Choices, protect

FIGURES = ROOT / "docs" / "figures" / "audit.json"
TABLED = ROOT / "docs" / "figures" / "tables.json"
TEXTS = (ROOT / "docs" / "security.md", ROOT / "README.md")
TOLERANCE = 0.1
"""How far a share may be from its figure before a claim has to be written anew."""

_SEED = 1  # the same keys each time: attacks do not guess keys, so it makes none of them easier
_TIMES = (1, 10, 60, 600)  # seconds of one core: how long is said in steps, for machines differ


def measured(
    setting: Setting, scheme: str, *, attacks: Sequence[Attack] = ATTACKS
) -> dict[str, Any]:
    """What the attacks recover from one model, protected twice with keys that are known."""
    with tempfile.TemporaryDirectory() as name:
        outs = [Path(name) / str(number) for number in range(2)]
        source = str(setting.source)
        for number, out in enumerate(outs):
            protect(source, out, choices=Choices.of(scheme=scheme), seed=_SEED + number)
        scene = set_scene(source, outs[0], other=outs[1])
        found = audit(scene, attacks=attacks, clock=time.process_time)
    return {
        "model": setting.model,
        "what": setting.what,
        "scheme": setting.scheme_of(scheme),
        "width": scene.truth.key.shape[1],
        "vocabulary": len(scene.truth.rows),
        "rows": len(scene.knowledge.rows),
        "attacks": _figures(found),
        "finds": {one.name: finds(one) for one in found.findings},
        "unmounted": {attack.name: attack.reason for attack in found.unmounted},
    }


def _figures(found: Audit) -> dict[str, dict[str, float]]:
    return {
        one.name: {
            "recovered": round(one.recovered, 3),
            "control": round(one.control, 3),
            "seconds_below": next((t for t in _TIMES if one.seconds < t), 3600),
        }
        for one in found.findings
    }


def renewed(figures: Mapping[str, Any], model: Mapping[str, Any]) -> dict[str, Any]:
    """The figures with one model measured again, in the order of `SETTINGS`.

    Args:
        figures: as kept.
        model: as `measured` gives it.
    """
    finds = {one["name"]: one["finds"] for one in figures["attacks"]} | model["finds"]
    models = {(one["model"], one["scheme"]): one for one in figures["models"]}
    fresh = {name: value for name, value in model.items() if name != "finds"}
    models[model["model"], model["scheme"]] = fresh
    attacks = [
        {
            "name": attack.name,
            "level": str(attack.level),
            "finds": finds.get(attack.name, str(attack.target)),
            "cites": attack.cites,
        }
        for attack in sorted(ATTACKS, key=lambda one: (one.level, one.name))
    ]
    order = [(one.model, one.scheme_of(scheme)) for one in SETTINGS for scheme in one.schemes]
    return {"attacks": attacks, "models": [models[key] for key in order if key in models]}


def measure(names: Sequence[str]) -> None:
    """Measures models and keeps the figures of each as soon as they are there."""
    for setting in SETTINGS:
        for scheme in setting.schemes if setting.model in names else ():
            print(f"{setting.model}, {scheme} ...", file=sys.stderr, flush=True)
            figures = renewed(kept(), measured(setting, scheme))
            FIGURES.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


def tabulate(names: Sequence[str]) -> None:
    """Measures tables and keeps each as soon as it is there."""
    for name in names:
        print(f"{name} ...", file=sys.stderr, flush=True)
        tables = {**kept()["tables"], name: TABLES[name]()}
        ordered = {each: tables[each] for each in TABLES if each in tables}
        TABLED.write_text(json.dumps(ordered, indent=1) + "\n", encoding="utf-8")


def kept() -> dict[str, Any]:
    """The figures that the repository holds."""
    found: dict[str, Any] = {}
    for name, file in (("", FIGURES), ("tables", TABLED), ("search", SEARCHED)):
        read = json.loads(file.read_text(encoding="utf-8"))
        found |= {name: read} if name else read
    return found


def write_texts(figures: Mapping[str, Any]) -> None:
    """Writes the figures into the documents."""
    for path in TEXTS:
        text = path.read_text(encoding="utf-8")
        path.write_text(rewritten(text, figures), encoding="utf-8")


def main() -> int:
    """Runs the command."""
    models, tables = [setting.model for setting in SETTINGS], list(TABLES)
    parser = argparse.ArgumentParser(prog="claims", description="Renew the figures of docs.")
    parser.add_argument("--texts", action="store_true", help="measure nothing")
    parser.add_argument("--models", nargs="+", choices=models, help="only these")
    parser.add_argument("--tables", nargs="+", choices=tables, help="only these")
    given = parser.parse_args()
    everything = not (given.texts or given.models or given.tables)
    try:
        measure(models if everything else given.models or [])
        tabulate(tables if everything else given.tables or [])
    except BenchError as error:
        print(f"claims: {error}", file=sys.stderr)
        return 1
    write_texts(kept())
    print(f"written: {FIGURES.parent.relative_to(ROOT)}, {', '.join(p.name for p in TEXTS)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
