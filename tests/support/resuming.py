"""`--resume FILE`: a run that was cut short, or that failed, goes on where it was."""

from __future__ import annotations

import json
from pathlib import Path

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--resume",
        type=Path,
        metavar="FILE",
        help="run only the tests that FILE does not name, and add to FILE those that pass",
    )


def pytest_configure(config: pytest.Config) -> None:
    record = config.getoption("resume")
    if record is not None and not hasattr(config, "workerinput"):
        passed = Passed(record)
        config.pluginmanager.register(passed)
        config.add_cleanup(passed.file.close)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    record = config.getoption("resume")
    if record is None or not record.is_file():
        return
    # What a line of is not there yet, for the run was killed there, has not passed.
    lines = record.read_text().splitlines(keepends=True)
    passed = {json.loads(line) for line in lines if line.endswith("\n")}
    config.hook.pytest_deselected(items=[item for item in items if item.nodeid in passed])
    items[:] = [item for item in items if item.nodeid not in passed]


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    resumes = session.config.getoption("resume") is not None
    if resumes and exitstatus == pytest.ExitCode.NO_TESTS_COLLECTED:
        session.exitstatus = pytest.ExitCode.OK  # all had passed


class Passed:
    """Writes each test that passes into a file, at once."""

    def __init__(self, record: Path) -> None:
        record.parent.mkdir(parents=True, exist_ok=True)
        self.file = record.open("a")
        self.failed: set[str] = set()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.failed.add(report.nodeid)
        elif report.when == "teardown" and report.nodeid not in self.failed:
            self.file.write(json.dumps(report.nodeid) + "\n")
            self.file.flush()
