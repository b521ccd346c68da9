"""The three parties of a device's exchanges, on one wire."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from exchanges import Exchange, exchanging


@pytest.fixture
def exchange(tmp_path: Path) -> Iterator[Exchange]:
    with exchanging(tmp_path) as parties:
        yield parties
