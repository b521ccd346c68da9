"""The `triparty` command: lazy roles, exit codes, one-line errors."""

from __future__ import annotations

import subprocess
import sys

import pytest


def triparty(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "triparty.common", *words],
        capture_output=True,
        text=True,
        check=False,
    )


def test_help_names_the_roles_and_imports_none() -> None:
    code = (
        "import sys\n"
        "sys.argv = ['triparty', '--help']\n"
        "from triparty.common.cli import main\n"
        "try:\n    main()\n"
        "except SystemExit as stop:\n    assert stop.code == 0\n"
        "heavy = {'torch', 'transformers', 'fastapi', 'httpx', 'numpy', 'pydantic',\n"
        "         'triparty.developer', 'triparty.cloud', 'triparty.device'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"
    for word in ("developer", "cloud", "device", "demo"):
        assert word in done.stdout


@pytest.mark.parametrize("role", ["developer", "cloud", "device"])
def test_a_role_lists_its_verbs_without_torch(role: str) -> None:
    code = (
        "import sys\n"
        f"sys.argv = ['triparty', '{role}', '--help']\n"
        "from triparty.common.cli import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "print(sorted({'torch', 'transformers', 'fastapi'} & set(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"


def test_usage_errors_exit_with_2_in_one_line() -> None:
    done = triparty("nothing")
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert "nothing" in done.stderr


def test_failures_exit_with_1_in_one_line(tmp_path: object) -> None:
    done = triparty("device", "models", "--home", f"{tmp_path}/nowhere")
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1


def test_an_absent_library_names_the_extra_to_install() -> None:
    code = (
        "import sys\n"
        "sys.modules['sqlalchemy'] = None\n"
        "sys.argv = ['triparty', 'cloud', 'status', '--data', '.']\n"
        "from triparty.common.cli import main\n"
        "main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr == (
        "triparty: 'triparty cloud' needs sqlalchemy: pip install 'triparty[cloud]'\n"
    )


def test_version() -> None:
    assert triparty("--version").stdout.startswith("triparty ")
