"""What both halves of the demo stand on: folders, commands that are spawned, a cache."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from triparty.common.console import Console
from triparty.common.errors import StateError

STEP_LIMIT_S = 1800


@dataclass
class Stage:
    """Where a demo runs: its folders and what it prints.

    Attributes:
        folder: holds one folder a party.
        console: what people see.
    """

    folder: Path
    console: Console
    started: float = field(default_factory=time.monotonic)

    def home(self, role: str) -> Path:
        """The folder that only this role's processes use."""
        return self.folder / role

    def run(self, role: str, *words: str | Path, stdin: str | None = None) -> dict[str, Any]:
        """Runs one role command to its end and returns its JSON document.

        Raises:
            StateError: the command failed; holds what it wrote to stderr.
        """
        self.announce(role, *words)
        done = subprocess.run(
            command(role, *words, "--json"),
            input=stdin,
            stdout=subprocess.PIPE,
            stderr=None if sys.stderr.isatty() else subprocess.PIPE,
            text=True,
            timeout=STEP_LIMIT_S,
            check=False,
        )
        if done.returncode != 0:
            detail = (done.stderr or "").strip().removeprefix("triparty: ")
            raise StateError(f"the demo's '{role} {words[0]}' failed. {detail}")
        document: dict[str, Any] = json.loads(done.stdout)
        return document

    def announce(self, role: str, *words: str | Path) -> None:
        """Prints a role command as a person would type it."""
        shown = " ".join(self._shown(word) for word in words)
        seconds = time.monotonic() - self.started
        self.console.say(f"{seconds:6.1f} s  {role:<9}  $ triparty {role} {shown}")

    def _shown(self, word: str | Path) -> str:
        text = str(word).replace(f"{self.folder}/", "").replace(str(Path.home()), "~")
        if len(text) > 60:
            text = f"{text[:24]}..."
        return f'"{text}"' if " " in text else text


def command(role: str, *words: str | Path) -> list[str]:
    """The words of a role command, with this Python."""
    return [sys.executable, "-m", "triparty.common", role, *map(str, words)]


class Background:
    """A role command that runs beside the others, at most until the `with` block ends."""

    def __init__(self, stage: Stage, role: str, *words: str | Path) -> None:
        """Starts the command."""
        stage.announce(role, *words)
        self._what = f"{role} {words[0]}"
        self._process = subprocess.Popen(
            command(role, *words, "--json"),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    @property
    def returncode(self) -> int | None:
        """How it ended; None while it runs."""
        return self._process.poll()

    def __enter__(self) -> Self:
        """The command itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Stops the command if the block ended without its document."""
        with self._process:
            self._process.kill()

    def document(self) -> dict[str, Any]:
        """The command's JSON document; waits for it.

        Raises:
            StateError: the command failed.
        """
        output, errors = self._process.communicate(timeout=STEP_LIMIT_S)
        if self._process.returncode != 0:
            raise StateError(f"the demo's '{self._what}' failed. {errors.strip()}")
        document: dict[str, Any] = json.loads(output)
        return document


def made_once(stage: Stage, verb: str, name: str) -> Path:
    """What a developer's command makes at the first run; it is kept in the user's cache.

    Args:
        stage: of the demo.
        verb: of the developer; it takes the path to make.
        name: of what it makes.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "triparty"
    # Another Python may train another one.
    text = hashlib.sha256(sys.version.encode()).hexdigest()[:8]
    stem, dot, ending = name.partition(".")
    target = cache / f"{stem}-{text}{dot}{ending}"
    if not target.exists():
        cache.mkdir(parents=True, exist_ok=True)
        making = cache / f".making-{os.getpid()}{dot}{ending}"
        try:
            stage.run("developer", verb, making)
            if not target.exists():
                making.rename(target)
        finally:
            if making.is_dir():
                shutil.rmtree(making, ignore_errors=True)
            making.unlink(missing_ok=True)
    return target
