"""The `triparty` command: lazy roles, exit codes, one-line errors."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from triparty.common.console import Console
from triparty.common.demo import Background, Stage


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


def test_arguments_that_are_no_text_are_a_usage_error() -> None:
    done = triparty("device", "generate", "model", "\udcff")
    assert done.returncode == 2
    assert done.stderr == "triparty: an argument is not valid UTF-8\n"


def test_version() -> None:
    assert triparty("--version").stdout.startswith("triparty ")


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    done = triparty("developer", "init", "--home", str(tmp_path / "file" / "home"))
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr == f"triparty: {tmp_path}/file/home: Not a directory\n"


def test_a_command_beside_the_demo_ends_with_it(tmp_path: Path) -> None:
    stage = Stage(tmp_path, Console(as_json=True))
    words = ("example-model", tmp_path / "model", "--seconds", "600")
    started: list[Background] = []

    def fail() -> None:
        with Background(stage, "developer", *words) as beside:
            started.append(beside)
            assert beside.returncode is None
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert started[0].returncode is not None
