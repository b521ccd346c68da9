"""One cloud, one developer with two published models, one enrolled device."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from three_parties import Parties, new_cloud


@pytest.fixture(scope="session")
def parties(
    tmp_path_factory: pytest.TempPathFactory, stories_model: Path, capp_model: Path
) -> Iterator[Parties]:
    """One cloud, one developer with two published models, one device that may use both."""
    for name in list(os.environ):
        assert not name.startswith("TRIPARTY_CLOUD_"), f"unset {name}"
    folder = tmp_path_factory.mktemp("parties")
    together = Parties(folder, new_cloud(folder / "cloud"))
    try:
        together.enroll_developer()
        for source, name in ((stories_model, "stories"), (capp_model, "capp")):
            together.publish(together.protect(source, name), name)
        together.enroll_device("phone")
        together.grant("phone")
        together.pull("phone")
        yield together
    finally:
        together.cloud.stop()
