"""An attack: what it knows, what it is after, what came of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from triparty.developer.audit.claims import Claim
from triparty.developer.audit.knowledge import Knowledge
from triparty.developer.audit.levels import Level


class Target(StrEnum):
    """What an attack is after."""

    TOKENS = "tokens"
    KEY = "key"
    WEIGHTS = "weights"
    FUNCTION = "function"


class Attack(Protocol):
    """One attack, in one module; stateless, so that one instance serves for all models.

    Attributes:
        name: what reports call it, in lower case with hyphens.
        level: the least knowledge that it needs.
        target: what it is after.
        cites: whose idea it is: a paper, or a section of the thesis.
        means: what its success means for the people whose data it is, in a sentence.
        remedy: what would change it, in a sentence.
    """

    name: str
    level: Level
    target: Target
    cites: str
    means: str
    remedy: str

    def lacks(self, knowledge: Knowledge) -> str | None:
        """Why it cannot be mounted on this model or traffic; None if it can."""

    def mount(self, knowledge: Knowledge) -> Claim:
        """Attacks; `knowledge` has at most what its level gives, and `lacks` nothing."""

    def control(self, knowledge: Knowledge) -> Knowledge:
        """The same situation without what the attack exploits, where it must find nothing."""


@dataclass(frozen=True)
class Findings:
    """What came of an attack.

    Attributes:
        name: of the attack.
        level: of the attacker.
        target: what it was after.
        recovered: share of it, 0 to 1, that was recovered and is right where that can be
            checked.
        seconds: how long it took.
        rows: how many rows of traffic it was given.
        matched: share of it that the attack claimed.
        checked: whether the claim was compared with the truth.
        control: the share that the same attack recovers where what it exploits is not there.
        cites: whose idea it is.
        means: what it means.
        remedy: what would change it.
        claim: the kind of claim, by the name of its class.
        figures: further numbers, by what they count.
    """

    name: str
    level: str
    target: str
    recovered: float
    seconds: float
    rows: int
    matched: float
    checked: bool
    control: float
    cites: str = ""
    means: str = ""
    remedy: str = ""
    claim: str = ""
    figures: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Unmounted:
    """An attack that was not tried, and why.

    Attributes:
        name: of the attack.
        level: of the attacker.
        reason: what was lacking.
    """

    name: str
    level: str
    reason: str
