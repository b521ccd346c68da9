"""The three parties of a device's exchanges, on one wire."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from cloud_on_wire import CloudOnWire
from exchanges import NOW, Exchange

from triparty.common import access as access_module


@pytest.fixture
def exchange(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Exchange]:
    with CloudOnWire(tmp_path / "cloud", now=NOW) as wire:
        monkeypatch.setattr(access_module, "Connection", wire.connection)
        yield Exchange(tmp_path, wire)
