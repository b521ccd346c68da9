"""Every example, run as its README says."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from sentence_encoders import sentence_encoder
from three_parties import free_port, triparty

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "examples"
LIMIT_S = 120


@contextmanager
def started(script: str, *words: str | Path, folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A script of the examples while it runs; ended afterwards, if it has not."""
    process = subprocess.Popen(
        [sys.executable, "-u", EXAMPLES / script, *map(str, words)],
        cwd=folder,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    with process:
        try:
            yield process
        finally:
            process.send_signal(signal.SIGINT)


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


@dataclass
class Operator:
    """Who runs `cloud.py`, once for all stories.

    Attributes:
        data: folder of the cloud.
        codes: invites of developers that were printed and not used.
    """

    data: Path
    codes: list[str]

    def code(self) -> str:
        """A developer's invite: what the script printed, then those of the command."""
        if self.codes:
            return self.codes.pop()
        code: str = triparty("cloud", "invite", "--data", self.data)["invite"]
        return code


@pytest.fixture(scope="module")
def operator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operator]:
    folder = tmp_path_factory.mktemp("examples")
    with started("cloud.py", "cloud", str(free_port()), folder=folder) as cloud:
        yield Operator(folder / "cloud", [read_code(cloud)])


def told(name: str, model: Path, *words: str, operator: Operator, folder: Path) -> str:
    """What the device of an example prints, when its developer has granted the model."""
    with (
        started(f"{name}/developer.py", "developer", model, folder=folder) as developer,
        started(f"{name}/device.py", "device", *words, folder=folder) as device,
    ):
        type_line(developer, operator.code())
        type_line(device, read_code(developer))
        while not (folder / "device" / "cloud.json").exists():
            assert device.poll() is None
            time.sleep(0.05)
        said, _ = developer.communicate("\n", timeout=LIMIT_S)
        assert "granted" in said
        answer, _ = device.communicate(timeout=LIMIT_S)
    return answer


@pytest.mark.timeout(600)
def test_private_chat(tmp_path: Path, stories_model: Path, operator: Operator) -> None:
    """The expected text is the greedy one of stock `transformers`, of both turns at once."""
    turns = ("Once upon a time", "Suddenly, a big dog")
    answer = told("private_chat", stories_model, *turns, operator=operator, folder=tmp_path)
    _, *parts = answer.split("> ")
    first, second = (" ".join(part.partition("\n[")[0].split()) for part in parts)
    assert first == (
        "Once upon a time , there was a little girl named Lily. She loved to play outside in "
        "the park. One day, she saw a big, red ball."
    )
    assert second.startswith(
        'Suddenly, a big dog came and asked, "What are you doing?" Lily asked, "I want to'
    )


@pytest.mark.timeout(600)
def test_private_search(tmp_path: Path, operator: Operator) -> None:
    notes = tmp_path / "notes"
    notes.mkdir()
    (notes / "morning.md").write_text("Cars arrived at the garage.\n\nThe boardroom\nwas free.")
    (notes / "evening.txt").write_text("A dog was in the garden.\n\nThe kitchen was occupied.")
    (notes / "picture.png").write_text("was nobody in the conference room")
    question = "was nobody in the conference room"
    encoder = sentence_encoder(tmp_path / "encoder", "--steps", "60")
    answer = told(
        "private_search", encoder, "notes", question, operator=operator, folder=tmp_path
    )
    found = re.findall(r"(\d\.\d{3})  (\S+): (.+)", answer)
    assert len(found) == 3
    assert found[0][1:] == ("morning.md", "The boardroom was free.")
    assert float(found[0][0]) > float(found[1][0]) >= float(found[2][0])


@pytest.mark.timeout(600)
def test_private_images(tmp_path: Path, operator: Operator) -> None:
    answer = told(
        "private_images", tmp_path / "model", "pictures", operator=operator, folder=tmp_path
    )
    found = re.findall(r"\d-(\w+)\.png: (\w+) \(\d+%\)", answer)
    assert len(found) == 6
    assert [named for _, named in found] == [drawn for drawn, _ in found]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_building(tmp_path: Path, operator: Operator) -> None:
    for verb, made in (("encoder", "encoder"), ("detector", "detector.onnx")):
        triparty("developer", f"example-{verb}", tmp_path / made)
    question = "Was anybody in the meeting room in the last minute?"
    words = ("detector.onnx", question)
    answer = told("building", tmp_path / "encoder", *words, operator=operator, folder=tmp_path)
    assert "Yes" in answer
    assert "The cloud got keyed rows" in answer


def test_every_story_has_a_script_for_each_role() -> None:
    """The cloud's is that of all; it stands beside them, and their pages name it."""
    for folder in filter(Path.is_dir, EXAMPLES.iterdir()):
        page = (folder / "README.md").read_text(encoding="utf-8")
        named = re.findall(r"^python (\S+\.py)", page, re.MULTILINE)
        assert named == ["../cloud.py", "developer.py", "device.py"], folder
        assert all((folder / script).exists() for script in named), folder


def test_every_example_is_listed() -> None:
    folders = {path.name for path in EXAMPLES.iterdir() if path.is_dir()}
    for page in (EXAMPLES / "README.md", ROOT / "README.md"):
        text = page.read_text(encoding="utf-8")
        assert all(folder in text for folder in folders), page
