"""A run that was cut short, or that failed, goes on where it was.

`TRIPARTY_TEST_RESUME` names a file: only tests that it does not name are run, and those that
pass are added to it. (No option: processes of pytest-xdist read options before they know this
plugin.)
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest


def record() -> Path | None:
    """The file, where there is to be one."""
    named = os.environ.get("TRIPARTY_TEST_RESUME")
    return Path(named) if named else None


def pytest_configure(config: pytest.Config) -> None:
    file = record()
    if file is not None and not hasattr(config, "workerinput"):
        passed = Passed(file)
        config.pluginmanager.register(passed)
        config.add_cleanup(passed.file.close)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    file = record()
    if file is None or not file.is_file():
        return
    # What a line of is not there yet, for the run was killed there, has not passed.
    lines = file.read_text().splitlines(keepends=True)
    passed = {json.loads(line) for line in lines if line.endswith("\n")}
    config.hook.pytest_deselected(items=[item for item in items if item.nodeid in passed])
    items[:] = [item for item in items if item.nodeid not in passed]


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    if record() is not None and exitstatus == pytest.ExitCode.NO_TESTS_COLLECTED:
        session.exitstatus = pytest.ExitCode.OK  # all had passed


class Passed:
    """Writes each test that passes into a file, at once."""

    def __init__(self, file: Path) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        self.file = file.open("a")
        self.failed: set[str] = set()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.failed.add(report.nodeid)
        elif report.when == "teardown" and report.nodeid not in self.failed:
            self.file.write(json.dumps(report.nodeid) + "\n")
            self.file.flush()
