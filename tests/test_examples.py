"""Every example, run as its README says."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from three_parties import free_port

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "examples"
LIMIT_S = 120


def start(script: str, *words: str | Path, folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-u", EXAMPLES / script, *map(str, words)],
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


def told(name: str, model: Path, *words: str, folder: Path) -> tuple[str, str]:
    """What developer and device of an example print, in a cloud of their own."""
    own = name if (EXAMPLES / name / "cloud.py").exists() else "private_text"
    cloud = start(f"{own}/cloud.py", "cloud", str(free_port()), folder=folder)
    with cloud:
        try:
            developer = start(f"{name}/developer.py", "developer", model, folder=folder)
            type_line(developer, read_code(cloud))
            code = read_code(developer)
            device = start(f"{name}/device.py", "device", *words, folder=folder)
            type_line(device, code)
            while not (folder / "device" / "cloud.json").exists():
                assert device.poll() is None
                time.sleep(0.05)
            said, _ = developer.communicate("\n", timeout=LIMIT_S)
            assert "granted" in said
            answer, _ = device.communicate(timeout=LIMIT_S)
        finally:
            cloud.send_signal(signal.SIGINT)
    return said, answer


@pytest.mark.timeout(600)
def test_private_text(tmp_path: Path, stories_model: Path) -> None:
    _, answer = told("private_text", stories_model, "Once upon a time", folder=tmp_path)
    assert "Once upon a time, there was a little girl named Lily." in answer
    assert "[40 tokens" in answer


@pytest.mark.timeout(600)
def test_private_images(tmp_path: Path) -> None:
    _, answer = told("private_images", tmp_path / "model", "pictures", folder=tmp_path)
    found = re.findall(r"\d-(\w+)\.png: (\w+) \(\d+%\)", answer)
    assert len(found) == 6
    assert [named for _, named in found] == [drawn for drawn, _ in found]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_building(tmp_path: Path) -> None:
    for verb, made in (("encoder", "encoder"), ("detector", "detector.onnx")):
        words = ("-m", "triparty.common", "developer", f"example-{verb}", tmp_path / made)
        subprocess.run([sys.executable, *words], check=True, stdout=subprocess.DEVNULL)
    question = "Was anybody in the meeting room in the last minute?"
    _, answer = told(
        "building", tmp_path / "encoder", "detector.onnx", question, folder=tmp_path
    )
    assert "Yes" in answer
    assert "The cloud got keyed rows" in answer


def test_every_cloud_is_run_by_the_same_script() -> None:
    """A folder is copied whole, so some have a copy."""
    assert len({path.read_bytes() for path in EXAMPLES.glob("*/cloud.py")}) == 1


def test_every_example_is_listed() -> None:
    folders = {path.name for path in EXAMPLES.iterdir() if path.is_dir()}
    for page in (EXAMPLES / "README.md", ROOT / "README.md"):
        text = page.read_text(encoding="utf-8")
        assert all(folder in text for folder in folders), page
