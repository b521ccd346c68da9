"""The audit: what its attacks recover, beside what their sources say.

The attacks are instruments, so more is better here: one that recovers less than its source
says tells a user too little. Every attack of the audit is measured on every trained model;
those with a figure in `REFERENCES` have it as their target. What protects users against them is
measured by other suites and by `audit --compare`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import lru_cache, partial
from typing import Any

from benchmarks import correlations, frequencies
from benchmarks.checkpoints import real_model
from benchmarks.claim_settings import SETTINGS, Setting
from benchmarks.claims import measured
from benchmarks.harness import Case, Effort, case
from triparty.developer.audit import ATTACKS, Attack
from triparty.developer.audit.compare import compare
from triparty.developer.audit.comparison import Measured
from triparty.developer.audit.mitigations import MITIGATIONS
from triparty.developer.audit.stage import QUICK

# By attack and scheme: the share that its source, or our own earlier measurement, reports.
REFERENCES: Mapping[tuple[str, str], tuple[float, str]] = {
    ("sorted-rows", "permutation"): (1.0, "100 %, fp32 to bf16, on synthetic rows"),
    ("sorted-rows", "either"): (1.0, "100 %, fp32 to bf16, on synthetic rows"),
    ("norms", "orthogonal"): (0.98, "98 % in fp32, 5 % in bf16, on synthetic rows"),
    ("alignment", "permutation"): (1.0, "100 % at up to 30 % drift, in seconds"),
    ("rotation", "orthogonal"): (0.95, "key to 5 % and all tokens at up to 20 % drift"),
    ("linking", "permutation"): (1.0, "100 % of the relative key from the weights alone"),
    ("linking", "orthogonal"): (1.0, "relative key to 1e-15 from the weights alone"),
    ("hidden-vocabulary", "permutation"): (0.97, "97 to 100 % of prompts whole"),
}


@lru_cache(maxsize=1)
def _measured(setting: Setting, scheme: str) -> Mapping[str, Any]:
    """One audit for the cases of one model: they follow each other."""
    return measured(setting, scheme)


def _recovered(effort: Effort, setting: Setting, scheme: str, name: str) -> Iterator[float]:
    """What one attack recovers; nothing is drawn, so one run is all there is to know.

    An attack that cannot be mounted here recovers nothing.
    """
    yield _measured(setting, scheme)["attacks"].get(name, {}).get("recovered", 0.0)


def _case(setting: Setting, scheme: str, attack: Attack) -> Case:
    kind = setting.scheme_of(scheme)
    target, figure = REFERENCES.get((attack.name, kind), (None, "no figure for this case"))
    return Case(
        f"{attack.target} that {attack.name} ({attack.level}) recovers: {setting.model}, "
        f"{'either scheme' if kind == 'either' else kind}",
        "share",
        "higher",
        target,
        f"{figure}; {attack.cites}",
        partial(_recovered, setting=setting, scheme=scheme, name=attack.name),
    )


recovered = tuple(
    _case(setting, scheme, attack)
    for setting in SETTINGS
    for scheme in setting.schemes
    for attack in ATTACKS
)

correlated = correlations.correlations
counted = frequencies.counted


@case(
    "share of tokens read through 50 % noise by an attacker who fits the key (K2)",
    unit="share",
    better="lower",
    reference="arXiv 2505.13758: noise that does not depend on the input is read through",
)
def noisy_rows(effort: Effort) -> Iterator[float]:
    """What fresh noise under a fixed key hides of 1,024 rows with 16 known tokens."""
    for line in _compared("noise 50%", effort):
        yield line.clear


@case(
    "share of tokens attributed to their user among 19 decoys of the same kind (K2)",
    unit="share",
    better="lower",
    target=0.10,
    reference="1 in 20 expected; all texts are read, at 20 times the cost",
)
def decoys(effort: Effort) -> Iterator[float]:
    """Every text is read; which one is the user's is guessed in four ways, the best counts."""
    for line in _compared("19 decoys (text)", effort):
        yield line.attributed


def _compared(name: str, effort: Effort) -> Iterator[Measured]:
    chosen = [mitigation for mitigation in MITIGATIONS if mitigation.name == name]
    for seed in range(1 if effort.quick else 3):
        wanted = replace(QUICK, requests=200, decoys=4000, seed=seed)
        compared = compare(real_model("stories260K"), mitigations=chosen, effort=wanted)
        yield from compared.measured
