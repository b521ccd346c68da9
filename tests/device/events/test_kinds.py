"""What kind of event a change is."""

from __future__ import annotations

import pytest

from triparty.device.events.kinds import kind_of, kind_of_stored


@pytest.mark.parametrize(
    ("measure", "before", "after", "kind"),
    [
        ("presence", False, True, "enter"),
        ("presence", True, False, "leave"),
        ("count", 0, 3, "enter"),
        ("count", 3, 0, "leave"),
        ("count", 3, 2, "count"),
        ("anomaly", False, True, "anomaly"),
        ("anomaly", True, False, "leave"),
        ("labels", (1,), (1, 2), "enter"),
        ("labels", (1, 2), (2,), "leave"),
        ("labels", (1,), (2,), "change"),
        ("value", 0.0, 3.0, "change"),
    ],
)
def test_the_kind_of_a_change(measure: str, before: object, after: object, kind: str) -> None:
    assert kind_of(measure, before, after) == kind
    if measure not in ("anomaly",):
        told = [list(x) if isinstance(x, tuple) else x for x in (before, after)]
        assert kind_of_stored(*told) == kind
