"""Runs the law of each family for every model, choice, scheme and control that it names.

What takes an audit is slow for every choice but the first.
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
            slow = [pytest.mark.slow] if "audit" in metafunc.function.__name__ else []
            metafunc.parametrize(
                name,
                [
                    pytest.param(value, marks=slow if place else [])
                    for place, value in enumerate(values)
                ],
            )
