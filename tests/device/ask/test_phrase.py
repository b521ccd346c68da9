"""Answers as sentences: what is told to the second, and what nobody looked at."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest

from triparty.device.ask.finding import Finding, Gap
from triparty.device.ask.intent import Intent
from triparty.device.ask.interpretation import Interpretation
from triparty.device.ask.phrase import Clockface, told
from triparty.device.ask.times import Span

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC).timestamp()
HOUR = Span(NOON, NOON + 3600)
ZONE = ZoneInfo("UTC")


def test_a_stretch_within_a_minute_is_told_to_the_second() -> None:
    clock = Clockface(ZONE, HOUR)
    assert clock.stretch(NOON + 5, NOON + 50) == "from 12:00:05 to 12:00:50"
    assert clock.stretch(NOON + 5, NOON + 65) == "from 12:00 to 12:01"
    assert clock.stretch(NOON + 5, NOON + 50, goes_on=True) == "from 12:00 on"


@pytest.mark.parametrize(
    ("cameras", "said"),
    [
        (("yard",), " Yard was not looked at in that time."),
        (("yard", "door"), " Door and yard were not looked at in that time."),
    ],
)
def test_what_nobody_looked_at_is_a_sentence(cameras: tuple[str, ...], said: str) -> None:
    asked = Interpretation(Intent.PRESENT, 1.0, HOUR, True, (), ("person",), (), 1)
    gaps = tuple(Gap(name, HOUR.since, HOUR.until) for name in cameras)
    assert told(asked, Finding("unknown", gaps=gaps, covered=0.0), ZONE).endswith(said)
