"""Fixtures of all tests: a clean environment, real test data, tiny threads."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

ROOT = Path(__file__).resolve().parent.parent
# Before any test imports torch or transformers: nothing is fetched, one thread a process.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("OMP_NUM_THREADS", "1")

# No property depends on how fast the machine is; in CI the same examples are drawn each time.
settings.register_profile(
    "triparty",
    deadline=None,
    derandomize="CI" in os.environ,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("triparty")


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No setting of the person who runs the tests reaches them, nor does their home."""
    for name in list(os.environ):
        if name.startswith(("TRIPARTY_DEVELOPER_", "TRIPARTY_CLOUD_", "TRIPARTY_DEVICE_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("COLUMNS", "100")


@pytest.fixture(scope="session")
def test_data() -> Path:
    """The folder of real models and data sets; skips where it is absent."""
    folder = Path(os.environ.get("TRIPARTY_TEST_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"real test data absent: {folder} (set TRIPARTY_TEST_DATA)")
    return folder


@pytest.fixture(scope="session")
def stories_model(test_data: Path) -> Path:
    """A trained LLaMA-type model: stories260K."""
    return test_data / "models" / "stories260K"


@pytest.fixture(scope="session")
def capp_model(test_data: Path) -> Path:
    """A trained GPT-2: gpt2-capp."""
    return test_data / "models" / "gpt2-capp"
