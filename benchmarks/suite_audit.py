"""The audit: what its attacks recover, beside what their sources say.

The attacks are instruments, so more is better here: one that recovers less than its source
says tells a user too little. Every attack of the audit is measured on every trained model;
those with a figure in `REFERENCES` have it as their target. What protects users against them is
measured by other suites and by `audit --compare`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache, partial
from typing import Any

from benchmarks.claims import SETTINGS, Setting, measured
from benchmarks.harness import Case, Effort
from triparty.developer.audit import ATTACKS, Attack

# By attack and scheme: the share that its source, or our own earlier measurement, reports.
REFERENCES: Mapping[tuple[str, str], tuple[float, str]] = {
    ("sorted-rows", "permutation"): (1.0, "100 %, fp32 to bf16, on synthetic rows"),
    ("sorted-rows", "either"): (1.0, "100 %, fp32 to bf16, on synthetic rows"),
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
