"""The README's commands, run as written, in the order of its story."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from three_parties import free_port
from tiny_encoders import tiny_encoder, write_sentence_files

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
LIMIT_S = 240
STORY_LIMIT_S = 600


def story(part: str) -> list[str]:
    """The commands of one part of the story, without their comments."""
    match = re.search(rf"<!-- story: {part} -->\n```sh\n(.*?)```", README, re.DOTALL)
    assert match, f"README has no story '{part}'"
    return [line.partition("#")[0].strip() for line in match[1].splitlines()]


class Reader:
    """Somebody who types the README's commands, with another port and less patience."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.code = ""
        command = folder / "bin" / "triparty"
        command.parent.mkdir()
        command.write_text(
            f'#!/bin/sh\nexec "{sys.executable}" -m triparty.common "$@"\n', encoding="utf-8"
        )
        command.chmod(0o755)
        self.environment = {
            **os.environ,
            "PATH": f"{command.parent}:{os.environ['PATH']}",
            "HOME": str(folder),
        }

    def words(self, line: str) -> list[str]:
        line = line.replace("8443", str(self.port)).replace("CODE", self.code)
        if "example-model" in line:
            line += " --seconds 3"
        return shlex.split(line)

    def start(self, line: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            self.words(line),
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert process.stdout is not None
        assert str(self.port) in process.stdout.readline()
        return process

    def type(self, line: str) -> str:
        done = subprocess.run(
            self.words(line),
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=False,
        )
        assert done.returncode == 0, f"{line}: {done.stderr}"
        codes = re.findall(r"tpi1_\S+", done.stdout)
        self.code = codes[0] if codes else self.code
        return done.stdout


@pytest.mark.timeout(STORY_LIMIT_S)
def test_the_story_of_one_private_question(tmp_path: Path) -> None:
    reader = Reader(tmp_path)
    init, serve, invite = story("cloud")
    reader.type(init)
    cloud = reader.start(serve)
    try:
        for line in (invite, *story("developer"), *story("device")):
            answer = reader.type(line)
        write_sentence_files(tiny_encoder("bert", tmp_path / "my-encoder"))
        for line in story("encoder"):
            reader.type(line)
    finally:
        cloud.send_signal(signal.SIGTERM)
        cloud.wait(timeout=60)
        assert cloud.stdout is not None
        cloud.stdout.close()
    assert answer.strip()
    assert np.load(tmp_path / "vectors.npy", allow_pickle=False).shape == (2, 24)


def test_every_path_that_the_documents_name_exists() -> None:
    for page in (ROOT / "README.md", *(ROOT / "docs").rglob("*.md")):
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.relative_to(ROOT)}: {target}"


def test_the_glossary_is_in_alphabetical_order() -> None:
    rows = README.partition("## Words")[2].partition("##")[0]
    words = re.findall(r"^\| ([a-z ]+) \|", rows, re.MULTILINE)[1:]
    assert len(words) > 10
    assert words == sorted(words)
