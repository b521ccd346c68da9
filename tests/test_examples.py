"""Every example, run as its README says."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from three_parties import free_port

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "examples"
LIMIT_S = 120


def start(script: str, *words: str | Path, folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-u", EXAMPLES / "private_text" / script, *map(str, words)],
        cwd=folder,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


def read_code(process: subprocess.Popen[str]) -> str:
    """The invite code that a script prints."""
    assert process.stdout is not None
    for line in process.stdout:
        if match := re.search(r"tpi1_\S+", line):
            return match[0]
    raise AssertionError("the script ended without a code")


def type_line(process: subprocess.Popen[str], line: str) -> None:
    assert process.stdin is not None
    process.stdin.write(f"{line}\n")
    process.stdin.flush()


@pytest.mark.timeout(600)
def test_private_text(tmp_path: Path, stories_model: Path) -> None:
    cloud = start("cloud.py", "cloud", str(free_port()), folder=tmp_path)
    with cloud:
        try:
            developer = start("developer.py", "developer", stories_model, folder=tmp_path)
            type_line(developer, read_code(cloud))
            code = read_code(developer)
            device = start("device.py", "device", "Once upon a time", folder=tmp_path)
            type_line(device, code)
            while not (tmp_path / "device" / "cloud.json").exists():
                assert device.poll() is None
            said, _ = developer.communicate("\n", timeout=LIMIT_S)
            assert "granted" in said
            answer, _ = device.communicate(timeout=LIMIT_S)
        finally:
            cloud.send_signal(signal.SIGINT)
    assert "Once upon a time, there was a little girl named Lily." in answer
    assert "[40 tokens" in answer


def test_every_example_is_listed() -> None:
    folders = {path.name for path in EXAMPLES.iterdir() if path.is_dir()}
    for page in (EXAMPLES / "README.md", ROOT / "README.md"):
        text = page.read_text(encoding="utf-8")
        assert all(folder in text for folder in folders), page
