"""Test encodings of real clips, made once per test session."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from video_encodings import Encodings


@pytest.fixture(scope="session")
def encodings(test_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Encodings:
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    return Encodings(test_data / "clips", shared / "encodings")
