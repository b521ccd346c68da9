"""Every mitigation beside what it costs: leakage, accuracy, time, bytes.

Each mitigation is mounted for real: the model is compiled with its choices, the rows are the
bundle's after the device's own shield, and every attack of the audit reads them, with those
that are adapted to noise. Then the attacker has to name the real text among decoys.

The texts that attackers count, the texts that decoys are drawn from and models are tuned on,
and the texts that are attacked and judged are different ones.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from triparty.common.errors import SettingsError, UnsupportedModelError
from triparty.developer.audit.attack import Attack, Target
from triparty.developer.audit.attacks import ATTACKS, AttentionMaps, Echo, TrafficShape
from triparty.developer.audit.attacks.noisy_rows import NoisyRows
from triparty.developer.audit.attacks.rows_again import RowsAgain
from triparty.developer.audit.claims import Tokens
from triparty.developer.audit.comparison import Comparison, Measured
from triparty.developer.audit.decoding import decodes
from triparty.developer.audit.levels import Level
from triparty.developer.audit.mitigations import MITIGATIONS, Mitigation
from triparty.developer.audit.scene import Scene
from triparty.developer.audit.stage import Costs, Effort, Stage, plain_logits, texts_of
from triparty.developer.audit.views import ModelView
from triparty.developer.stock import load_model

TOKEN_ATTACKS: tuple[Attack, ...] = (
    *(
        attack
        for attack in ATTACKS
        if not isinstance(attack, TrafficShape | AttentionMaps | Echo)
    ),
    RowsAgain(),
    NoisyRows(),
)
"""Those that name tokens; what shows without a token's name is left out."""
ATTACKED = frozenset({Level.K0, Level.K1, Level.K2})


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
        source: folder of a causal language model.
        mitigations: to be measured, each by itself.
        effort: how much is measured; None is enough for a report.
        attacks: to be mounted, if they are after tokens.
        say: is told each line as it is measured.

    Raises:
        SettingsError: a model that is no decoder of text.
        UnsupportedModelError: a model that is not protected at all.
    """
    effort = effort or Effort()
    if why := decodes(ModelView.open(source)):
        raise SettingsError(
            f"{source}: mitigations are compared on models that write text: {why}"
        )
    plain = load_model(source)
    texts = texts_of(plain, effort)
    logits = plain_logits(plain, texts.judged)
    lines: list[Measured] = []
    refused: dict[str, str] = {}
    base: Costs | None = None
    with tempfile.TemporaryDirectory() as name:
        for number, mitigation in enumerate((Mitigation("", {}), *mitigations)):
            folder = Path(name) / str(number)
            try:
                stage = Stage(source, plain, mitigation, effort, texts, folder)
            except UnsupportedModelError as error:
                if base is None:
                    raise
                refused[mitigation.name] = error.message
                continue
            if base is None:
                base = stage.costs()
                continue
            lines.append(_measured(stage, mitigation, attacks, logits, base))
            say(f"{mitigation.name}: {lines[-1].attributed:.1%} of tokens attributed")
    counts = np.bincount(texts.traffic.ravel())
    guess = float(counts.max() / counts.sum())
    return Comparison(tuple(lines), texts.judged[:, 1:].size, effort.known, guess, refused)


def check_comparable(source: Path) -> None:
    """Refuses a model whose mitigations cannot be compared.

    Raises:
        SettingsError: a model that is no decoder of text.
    """
    if why := decodes(ModelView.open(source)):
        raise SettingsError(f"{source}: only models that write text are compared: {why}")


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
