"""Fixtures of all tests: a clean environment, real test data, tiny threads."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from postgres_server import PostgresServer, find_programs, running_postgres

pytest_plugins = ["resuming"]
ROOT = Path(__file__).resolve().parent.parent
# Before any test imports torch or transformers: nothing is fetched, one thread a process.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("OMP_NUM_THREADS", "1")
# No test reads or writes the keyring of the person who runs it.
os.environ["PYTHON_KEYRING_BACKEND"] = "keyring.backends.fail.Keyring"

# No property depends on how fast the machine is; in CI the same examples are drawn each time.
settings.register_profile(
    "triparty",
    deadline=None,
    derandomize="CI" in os.environ,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("triparty")


SLOWEST = (
    "tests/federation/test_deployment.py",
    "tests/exchange/",
    "tests/test_",
    "tests/benchmarks/",
    "tests/developer/audit/",
    "tests/cloud/",
    "tests/developer/",
    "tests/families/",
)
"""Where tests take long each: their files are begun first, so that none is left at the end."""


IN_MEMORY, ROOM = Path("/dev/shm"), 8 << 30


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Temporary folders are in memory where there is room: nothing waits for a disk.

    Tests kill processes, not machines: what they write need not outlive this one.
    """
    is_worker = hasattr(config, "workerinput")
    if is_worker or config.option.basetemp or not os.access(IN_MEMORY, os.W_OK):
        return
    if shutil.disk_usage(IN_MEMORY).free < ROOM or available_memory() < 2 * ROOM:
        return
    folder = tempfile.mkdtemp(prefix="triparty-tests-", dir=IN_MEMORY)
    config.option.basetemp = folder
    config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))


def available_memory() -> int:
    """Bytes that new programs can have."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return 0


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    def place(item: pytest.Item) -> int:
        found = (n for n, begin in enumerate(SLOWEST) if item.nodeid.startswith(begin))
        return next(found, len(SLOWEST))

    items.sort(key=place)


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


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A real PostgreSQL server; where none is installed: skips, and fails in CI."""
    programs = find_programs()
    if programs is None:
        absent = "PostgreSQL is not installed (apt-get install postgresql)"
        if os.environ.get("CI"):
            pytest.fail(absent)
        pytest.skip(absent)
    with running_postgres(programs) as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of an empty database, of each kind in turn."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'cloud.db'}"
        return
    server: PostgresServer = request.getfixturevalue("postgres")
    name = server.new_database()
    yield server.url(name)
    server.drop_database(name)
