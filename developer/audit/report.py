"""What an audit reports: what was attacked, what came of it, what the public has already."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from triparty.developer.audit.attack import Findings
from triparty.developer.audit.audit import Audit
from triparty.developer.audit.comparison import Comparison
from triparty.developer.audit.exposure import Exposure
from triparty.developer.audit.levels import Level
from triparty.developer.audit.subject import Subject

_LEAST_GAIN = 0.05
_NOUNS: Mapping[str, str] = {
    "Relation": "relative key",
    "Links": "links",
    "Seen": "what shows",
    "Vocabulary": "vocabulary",
}


@dataclass(frozen=True)
class Report:
    """Everything that people and scripts are told.

    Attributes:
        subject: what was attacked.
        audit: what came of it.
        exposure: what the public has already.
        version: of triparty.
        at: when the audit ended, in UTC.
        comparison: of mitigations, if they were compared.
    """

    subject: Subject
    audit: Audit
    exposure: Exposure
    version: str
    at: datetime
    comparison: Comparison | None = None

    @property
    def levels(self) -> list[Level]:
        """The levels of which attacks were mounted, or would have been, in order."""
        tried = {found.level for found in self.audit.findings}
        tried |= {attack.level for attack in self.audit.unmounted}
        return [level for level in Level if level in tried]

    def of_level(self, level: Level) -> list[Findings]:
        """What the attacks of one level found."""
        return [found for found in self.audit.findings if found.level == level]

    @property
    def successes(self) -> list[Findings]:
        """The attacks that recovered something, by level, those that recovered most first."""
        return sorted(
            filter(succeeded, self.audit.findings),
            key=lambda found: (found.level, -found.recovered),
        )


def succeeded(found: Findings) -> bool:
    """Whether an attack recovered clearly more than it does where there is nothing to find."""
    return found.recovered - found.control >= _LEAST_GAIN


def finds(found: Findings) -> str:
    """What an attack claims to have found, which is more exact than what it is after.

    The key that leads from one instance to another is not the key, and what shows as it is
    was not recovered.
    """
    return _NOUNS.get(found.claim, found.target)


def of_what(found: Findings) -> str:
    """The same after a share: "of the key", "of what shows"."""
    noun = finds(found)
    return f"of {noun}" if found.claim == "Seen" else f"of the {noun}"


def strongest(findings: Iterable[Findings], what: str, level: str) -> Findings | None:
    """The attack that gives an attacker of some level the most of one thing.

    An attacker of a level can mount what those of lower levels can.

    Args:
        findings: of all attacks.
        what: that they find.
        level: of the attacker.

    Returns:
        None if no such attack was mounted.
    """
    mounted = [found for found in findings if finds(found) == what and found.level <= level]
    return max(mounted, key=lambda found: found.recovered, default=None)


def document(report: Report) -> dict[str, Any]:
    """The audit's one JSON document.

    `attacks` and `public_base` are what scripts rely on: of each attack its `name`, `level`,
    `target`, `recovered` (0 to 1) and `seconds`.
    """
    compared = report.comparison
    return {
        "attacks": [asdict(found) for found in report.audit.findings],
        "unmounted": [asdict(attack) for attack in report.audit.unmounted],
        **asdict(report.exposure),
        "subject": asdict(report.subject),
        "version": report.version,
        "at": report.at.isoformat(timespec="seconds"),
        **({} if compared is None else {"comparison": asdict(compared)}),
    }
