"""Runs the law of each family for every model, choice, scheme and control that it names.

What takes an audit is slow for every choice but the first, and for that, too, in families whose
attacks differ in nothing from another's. Where a law is asked of every model under every
choice, each choice of the first model and each model under the first choice are part of every
run, the others are slow.
"""

from __future__ import annotations

from itertools import product

import pytest
from family_law import FamilyLaw


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    law = metafunc.cls
    if law is None or not issubclass(law, FamilyLaw):
        return
    axes = {
        "model": law.models,
        "choice": law.choices(),
        "scheme": law.schemes,
        "control": law.controls,
    }
    asked = [name for name in axes if name in metafunc.fixturenames]
    if not asked:
        return
    is_audit = "audit" in metafunc.function.__name__
    first = 1 if law.is_audited_first else 0
    combined = []
    for values in product(*(list(axes[name]) for name in asked)):
        places = [
            list(axes[name]).index(value) for name, value in zip(asked, values, strict=True)
        ]
        is_slow = places[0] >= first if is_audit else "choice" in asked and min(places) > 0
        marks = pytest.mark.slow if is_slow else ()
        combined.append(pytest.param(*values, id="-".join(values), marks=marks))
    metafunc.parametrize(asked, combined)
