"""Test encodings of real clips, made once per test session."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from video_encodings import Encodings


@pytest.fixture(scope="session")
def clips(test_data: Path) -> Path:
    """The folder of real clips."""
    return test_data / "clips"


@pytest.fixture(scope="session")
def encodings(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Encodings:
    base = tmp_path_factory.getbasetemp()
    # Processes of one session share a parent folder; without them it would be everybody's.
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    return Encodings(clips, shared / "encodings")
