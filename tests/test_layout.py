"""The tree: packages listed, nothing shadowed, `common` shared, contracts that can fail."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ROLES = ("developer", "cloud", "device")
FOLDERS = ("common", *ROLES)


def shipped() -> list[Path]:
    return [path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")]


def imported_modules(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            found.update(f"{node.module}.{name.name}" for name in node.names)
        elif isinstance(node, ast.Import):
            found.update(name.name for name in node.names)
    return found


def test_every_package_is_listed() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    listed = settings["tool"]["setuptools"]["packages"]
    found = {
        ".".join(["triparty", *init.parent.relative_to(ROOT).parts])
        for folder in FOLDERS
        for init in (ROOT / folder).rglob("__init__.py")
    }
    assert found == set(listed)


def test_no_module_bears_the_name_of_a_standard_one() -> None:
    names = {path.stem for path in shipped()} - {"__init__", "__main__"}
    assert not names & set(sys.stdlib_module_names)


def test_common_holds_only_what_two_roles_reach() -> None:
    users: dict[str, set[str]] = {}
    for path in shipped():
        role = path.relative_to(ROOT).parts[0]
        for module in imported_modules(path):
            if module.startswith("triparty.common."):
                users.setdefault(module.split(".")[2], set()).add(role)
    modules = {path.stem for path in (ROOT / "common").glob("*.py")}
    entry_points = {"__init__", "__main__", "cli", "demo"}
    shared_by_design = {"telemetry"}  # gateways log in the cloud's form
    lonely = {
        name
        for name in modules - entry_points - shared_by_design
        if len(users.get(name, set()) - {"common"}) < 2
        and "common" not in users.get(name, set())
    }
    assert not lonely, f"used by one role alone, so it belongs there: {sorted(lonely)}"


def test_nothing_shipped_asserts() -> None:
    asserting = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in shipped()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Assert)
    ]
    assert not asserting


@pytest.mark.parametrize(
    ("importer", "line"),
    [
        ("cloud", "from triparty.common import keying"),
        ("cloud", "import triparty.common.sealing"),
        ("device", "import triparty.cloud"),
        ("common", "import triparty.developer"),
        ("device", "import torch"),
    ],
)
def test_a_forbidden_import_breaks_a_contract(tmp_path: Path, importer: str, line: str) -> None:
    package = tmp_path / "triparty"
    for folder in FOLDERS:
        for path in (ROOT / folder).rglob("*.py"):
            copy = package / path.relative_to(ROOT)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_text(path.read_text(encoding="utf-8"), encoding="utf-8")
    settings = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    (tmp_path / "pyproject.toml").write_text(settings, encoding="utf-8")
    assert lint(tmp_path).returncode == 0, lint(tmp_path).stdout
    (package / importer / "smuggler.py").write_text(f"{line}\n", encoding="utf-8")
    assert lint(tmp_path).returncode == 1


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    code = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    return subprocess.run(
        [sys.executable, "-c", code, "--no-cache"],
        cwd=folder,
        env={"PYTHONPATH": str(folder), "PATH": "/usr/bin:/bin", "COLUMNS": "100"},
        capture_output=True,
        text=True,
        check=False,
    )
