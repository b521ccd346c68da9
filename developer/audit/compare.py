"""Every mitigation beside what it costs: leakage, accuracy, time, bytes.

Each mitigation is mounted for real: the model is compiled with its choices, the rows are the
bundle's after the device's own shield, and every attack of the audit reads them, with those
that are adapted to noise. Then the attacker has to name the real text among decoys.

The texts that attackers count, the texts that decoys are drawn from and models are tuned on,
and the texts that are attacked and judged are different ones.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from triparty.developer.audit.attack import Attack, Target
from triparty.developer.audit.attacks import ATTACKS
from triparty.developer.audit.attacks.noisy_rows import NoisyRows
from triparty.developer.audit.attacks.rows_again import RowsAgain
from triparty.developer.audit.claims import Tokens
from triparty.developer.audit.levels import Level
from triparty.developer.audit.mitigations import MITIGATIONS, Mitigation
from triparty.developer.audit.scene import Scene
from triparty.developer.audit.stage import Costs, Effort, Stage, plain_logits, texts_of
from triparty.developer.stock import load_model

TOKEN_ATTACKS: tuple[Attack, ...] = (*ATTACKS, RowsAgain(), NoisyRows())
ATTACKED = frozenset({Level.K0, Level.K1, Level.K2})


@dataclass(frozen=True)
class Measured:
    """One line of the table.

    Attributes:
        name: of the mitigation.
        leakage: share of tokens that each attack recovers, by level, then by attack.
        clear: share of tokens that the best attack up to K2 reads in the clear.
        named: share of requests whose real text is named among its decoys, by what is looked
            at; empty without decoys.
        attributed: share of tokens that are read and known to be the user's.
        agreement: share of positions with the plain model's likeliest token.
        perplexity_ratio: perplexity through the mitigation over the plain model's.
        device_ratio: processor time of a decode step on the device, over `permutation`'s.
        cloud_ratio: the same on the cloud.
        bytes_ratio: bytes on the wire for a token, over `permutation`'s.
        seconds_per_instance: to compile one.
        bytes_per_instance: of its model and one bundle.
        rows: how many were attacked.
    """

    name: str
    leakage: Mapping[str, Mapping[str, float]]
    clear: float
    named: Mapping[str, float]
    attributed: float
    agreement: float
    perplexity_ratio: float
    device_ratio: float
    cloud_ratio: float
    bytes_ratio: float
    seconds_per_instance: float
    bytes_per_instance: int
    rows: int


@dataclass(frozen=True)
class Comparison:
    """All mitigations beside each other.

    Attributes:
        measured: a line each, in the order in which they were given.
        positions: how many positions accuracy was judged on.
        known: distinct tokens whose rows attackers of K1 and above know.
        guess: share of tokens that is right if the most frequent one is always said.
    """

    measured: tuple[Measured, ...]
    positions: int
    known: int
    guess: float


def compare(
    source: Path,
    *,
    mitigations: Sequence[Mitigation] = MITIGATIONS,
    effort: Effort | None = None,
    attacks: Sequence[Attack] = TOKEN_ATTACKS,
    say: Callable[[str], None] = lambda line: None,
) -> Comparison:
    """Measures mitigations on a model.

    Args:
        source: folder of a causal language model without learned positions.
        mitigations: to be measured, each by itself.
        effort: how much is measured; None is enough for a report.
        attacks: to be mounted, if they are after tokens.
        say: is told each line as it is measured.

    Raises:
        SettingsError: a model whose devices send no rows, or sums with positions.
    """
    effort = effort or Effort()
    plain = load_model(source)
    texts = texts_of(plain, effort)
    logits = plain_logits(plain, texts.judged)
    lines: list[Measured] = []
    base: Costs | None = None
    with tempfile.TemporaryDirectory() as name:
        for number, mitigation in enumerate((Mitigation("", {}), *mitigations)):
            stage = Stage(source, plain, mitigation, effort, texts, Path(name) / str(number))
            if base is None:
                base = stage.costs()
                continue
            lines.append(_measured(stage, mitigation, attacks, logits, base))
            say(f"{mitigation.name}: {lines[-1].attributed:.1%} of tokens attributed")
    counts = np.bincount(texts.traffic.ravel())
    return Comparison(
        tuple(lines), texts.judged[:, 1:].size, effort.known, float(counts.max() / counts.sum())
    )


def _measured(
    stage: Stage,
    mitigation: Mitigation,
    attacks: Sequence[Attack],
    logits: NDArray[np.float32],
    base: Costs,
) -> Measured:
    scene = stage.scene()
    leakage = leakage_of(scene, attacks)
    clear = max((share for by in leakage.values() for share in by.values()), default=0.0)
    named = stage.named()
    agreement, perplexity_ratio = stage.accuracy(logits)
    costs = stage.costs()
    return Measured(
        name=mitigation.name,
        leakage=leakage,
        clear=clear,
        named=named,
        attributed=clear * max(named.values(), default=1.0),
        agreement=agreement,
        perplexity_ratio=perplexity_ratio,
        device_ratio=costs.device_s / base.device_s * mitigation.streams,
        cloud_ratio=costs.cloud_s / base.cloud_s * mitigation.streams,
        bytes_ratio=costs.size / base.size * mitigation.streams,
        seconds_per_instance=stage.seconds,
        bytes_per_instance=stage.size,
        rows=sum(map(len, scene.knowledge.traffic)),
    )


def leakage_of(
    scene: Scene, attacks: Sequence[Attack] = TOKEN_ATTACKS
) -> dict[str, dict[str, float]]:
    """Share of tokens that each attack recovers, by level; 0 where it cannot be mounted."""
    found: dict[str, dict[str, float]] = {}
    for attack in attacks:
        if attack.target is not Target.TOKENS or attack.level not in ATTACKED:
            continue
        knowledge = scene.knowledge.at(attack.level)
        share = 0.0
        if attack.lacks(knowledge) is None:
            claim = attack.mount(knowledge)
            if not isinstance(claim, Tokens):
                continue  # what shows without naming a token, links
            share = claim.score(scene.truth)
        found.setdefault(attack.level, {})[attack.name] = share
    return found


def document(comparison: Comparison) -> dict[str, Any]:
    """The comparison as one JSON document."""
    return asdict(comparison)


_COLUMNS = (
    "mitigation",
    "K0",
    "K1",
    "K2",
    "named",
    "attributed",
    "top-1",
    "perplexity",
    "device",
    "cloud",
    "bytes",
    "s/instance",
    "MB/instance",
    "rows",
)


def table(comparison: Comparison) -> str:
    """A table for people, a line a mitigation."""
    lines = [_COLUMNS, *(_cells(line) for line in comparison.measured)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(_COLUMNS))]
    drawn = [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    ]
    return "\n".join(
        [
            *drawn,
            "K0 to K2: share of tokens that the best attack of the level reads; named: share "
            "of requests whose real text is told from its decoys; attributed: both.",
            f"Always saying the most frequent token is right {comparison.guess:.1%} of the "
            f"time. Attackers of K1 and K2 know rows of {comparison.known} distinct tokens.",
            f"top-1: agreement with the plain model over {comparison.positions:,} positions; "
            "device, cloud, bytes: of a decode step, over those of `permutation`.",
        ]
    )


def _cells(line: Measured) -> tuple[str, ...]:
    worst = [
        f"{max(line.leakage[level].values()):.1%}" if line.leakage.get(level) else "-"
        for level in (Level.K0, Level.K1, Level.K2)
    ]
    return (
        line.name,
        *worst,
        f"{max(line.named.values()):.1%}" if line.named else "-",
        f"{line.attributed:.1%}",
        f"{line.agreement:.1%}",
        f"x{line.perplexity_ratio:.3f}",
        f"x{line.device_ratio:.2f}",
        f"x{line.cloud_ratio:.2f}",
        f"x{line.bytes_ratio:.2f}",
        f"{line.seconds_per_instance:.2f}",
        f"{line.bytes_per_instance / 1e6:.2f}",
        f"{line.rows:,}",
    )
