"""Runs the law of each family for every model, choice, scheme and control that it names.

What takes an audit is slow for every choice but the first, and for that, too, in families whose
attacks differ in nothing from another's.
"""

from __future__ import annotations

import pytest
from family_law import FamilyLaw


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    law = metafunc.cls
    if law is None or not issubclass(law, FamilyLaw):
        return
    for name, values in (
        ("model", law.models),
        ("choice", law.choices()),
        ("scheme", law.schemes),
        ("control", law.controls),
    ):
        if name in metafunc.fixturenames:
            is_audit = "audit" in metafunc.function.__name__
            first = 1 if law.is_audited_first else 0
            metafunc.parametrize(
                name,
                [
                    pytest.param(
                        value, marks=pytest.mark.slow if is_audit and place >= first else ()
                    )
                    for place, value in enumerate(values)
                ],
            )
