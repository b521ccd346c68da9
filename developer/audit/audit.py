"""The audit: mounts every attack of the chosen levels on a protected model and its traffic."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from triparty.developer.audit.attack import Attack, Findings, Unmounted
from triparty.developer.audit.attacks import ATTACKS
from triparty.developer.audit.claims import Claim, ResidualKey, Seen, Truth, Weights
from triparty.developer.audit.knowledge import Knowledge
from triparty.developer.audit.levels import Level
from triparty.developer.audit.scene import Scene


@dataclass(frozen=True)
class Audit:
    """What came of all attacks.

    Attributes:
        findings: of those that were mounted.
        unmounted: the others.
    """

    findings: tuple[Findings, ...]
    unmounted: tuple[Unmounted, ...] = ()


def audit(
    scene: Scene,
    *,
    levels: frozenset[Level] = frozenset(Level),
    attacks: Sequence[Attack] = ATTACKS,
    clock: Callable[[], float] = time.perf_counter,
    begins: Callable[[Attack], None] = lambda attack: None,
) -> Audit:
    """Attacks a protected model and its traffic.

    Args:
        scene: what there is to be attacked.
        levels: attackers to play.
        attacks: to be mounted.
        clock: seconds, for the duration of each attack.
        begins: is told of each attack before it is tried.
    """
    findings: list[Findings] = []
    unmounted: list[Unmounted] = []
    for attack in attacks:
        if attack.level not in levels:
            continue
        begins(attack)
        knowledge = scene.knowledge.at(attack.level)
        lacking = attack.lacks(knowledge)
        if lacking is None:
            findings.append(mounted(attack, knowledge, scene.truth, clock))
        else:
            unmounted.append(Unmounted(attack.name, attack.level, lacking))
    return Audit(tuple(findings), tuple(unmounted))


def mounted(
    attack: Attack, knowledge: Knowledge, truth: Truth, clock: Callable[[], float]
) -> Findings:
    """What came of one attack, and of the same attack where it must find nothing."""
    started = clock()
    claim = attack.mount(knowledge)
    seconds = clock() - started
    return Findings(
        name=attack.name,
        level=attack.level,
        target=attack.target,
        recovered=claim.score(truth),
        seconds=seconds,
        rows=sum(map(len, knowledge.traffic)),
        matched=claim.share,
        checked=truth.checked,
        control=attack.mount(attack.control(knowledge)).score(truth),
        cites=attack.cites,
        means=attack.means,
        remedy=attack.remedy,
        claim=type(claim).__name__,
        figures=_figures(claim, truth),
    )


def _figures(claim: Claim, truth: Truth) -> Mapping[str, float]:
    if isinstance(claim, Weights):
        return claim.figures(truth)
    return claim.figures if isinstance(claim, Seen | ResidualKey) else {}
