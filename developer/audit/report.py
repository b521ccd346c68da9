"""What an audit prints."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from triparty.developer.audit.attack import Findings
from triparty.developer.audit.audit import Audit

_COLUMNS = ("attack", "level", "target", "recovered", "control", "rows", "seconds")

_KNOWS = {
    "K0": "the cloud alone",
    "K1": "who knows some of the plaintext",
    "K2": "who has the embedding table",
    "K3": "who has the public base weights",
    "K4": "who shares a user's bundle",
}


def document(found: Audit) -> dict[str, Any]:
    """The audit's one JSON document. Public bases are not looked for yet: null."""
    return {
        "attacks": [asdict(finding) for finding in found.findings],
        "unmounted": [asdict(attack) for attack in found.unmounted],
        "public_base": None,
    }


def table(findings: Sequence[Findings]) -> str:
    """A small table, a line an attack."""
    lines = [_COLUMNS] + [
        (
            found.name,
            found.level,
            found.target,
            f"{found.recovered:.1%}",
            f"{found.control:.1%}",
            str(found.rows),
            f"{found.seconds:.2f}",
        )
        for found in findings
    ]
    widths = [max(len(line[i]) for line in lines) for i in range(len(_COLUMNS))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def sentence(findings: Sequence[Findings]) -> str:
    """What the worst of it means, in one honest sentence."""
    worst = max(findings, key=lambda found: found.recovered)
    checked = "" if worst.checked else " (unchecked: the trace is of another epoch's bundle)"
    return (
        f"An attacker of level {worst.level}, {_KNOWS[worst.level]}, gets "
        f"{worst.recovered:.0%} of the {worst.target} on the wire in {worst.seconds:.2f} s"
        f"{checked}: this is re-keying, not encryption, and only the attacks above were tried."
    )
