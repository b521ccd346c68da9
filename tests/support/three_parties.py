"""Three folders, one a party; role commands as separate processes; one cloud over HTTPS."""

from __future__ import annotations

import json
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

START_LIMIT_S = 120
STEP_LIMIT_S = 240


class CommandError(Exception):
    """A role command that failed: its exit code and its line on stderr."""

    def __init__(self, code: int, line: str) -> None:
        super().__init__(f"exit {code}: {line}")
        self.code = code
        self.line = line


def triparty(role: str, *words: str | Path, stdin: str | None = None) -> dict[str, Any]:
    """Runs a role command; its JSON document, or CommandError."""
    done = subprocess.run(
        [sys.executable, "-m", "triparty.common", role, *map(str, words), "--json"],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=STEP_LIMIT_S,
        check=False,
    )
    if done.returncode != 0:
        raise CommandError(done.returncode, done.stderr.strip())
    document: dict[str, Any] = json.loads(done.stdout)
    return document


@dataclass
class Cloud:
    """A cloud process and its folder."""

    folder: Path
    url: str
    process: subprocess.Popen[str] | None = field(default=None, repr=False)
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @property
    def log(self) -> Path:
        return self.folder / "log.jsonl"

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def start(self, environment: dict[str, str] | None = None) -> None:
        """Serves, with more in its environment; None: what it had last."""
        if environment is not None:
            self.environment = environment
        with self.log.open("a", encoding="utf-8") as log:
            self.process = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "triparty.common",
                    "cloud",
                    "serve",
                    "--data",
                    self.data,
                ],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=os.environ | self.environment,
            )
        stdout = self.process.stdout
        assert stdout is not None
        lines: queue.Queue[str] = queue.Queue()
        threading.Thread(target=lambda: lines.put(stdout.readline()), daemon=True).start()
        line = lines.get(timeout=START_LIMIT_S)
        assert self.url in line, self.log.read_text(encoding="utf-8")

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        if self.process is None:
            return
        self.process.send_signal(how)
        self.process.wait(timeout=60)
        if self.process.stdout:
            self.process.stdout.close()
        self.process = None


@dataclass
class Parties:
    """The three parties of a test; each method is an exchange between two of them."""

    folder: Path
    cloud: Cloud

    @property
    def developer(self) -> Path:
        return self.folder / "developer"

    def device(self, name: str) -> Path:
        return self.folder / "devices" / name

    def enroll_developer(self) -> None:
        triparty("developer", "init", "--home", self.developer)
        code = triparty("cloud", "invite", "--data", self.cloud.data)["invite"]
        self.enroll("developer", self.developer, code)

    def enroll(self, role: str, home: Path, code: str) -> dict[str, Any]:
        words = ("enroll", "--cloud", self.cloud.url, "--invite", "-", "--home", home)
        return triparty(role, *words, stdin=code)

    def protect(self, source: Path, name: str) -> Path:
        out = self.folder / "protected" / name
        triparty("developer", "protect", source, out)
        return out

    def publish(self, out: Path, name: str) -> dict[str, Any]:
        return triparty("developer", "publish", out, "--name", name, "--home", self.developer)

    def enroll_device(self, name: str) -> dict[str, Any]:
        words = ("invite", "--name", name, "--home", self.developer)
        return self.enroll("device", self.device(name), triparty("developer", *words)["invite"])

    def grant(self, name: str) -> dict[str, Any]:
        return triparty("developer", "grant", name, "--home", self.developer)

    def pull(self, name: str) -> dict[str, Any]:
        return triparty("device", "pull", "--home", self.device(name))

    def ask(self, name: str, model: str, prompt: str, *options: str) -> dict[str, Any]:
        words = ("generate", model, prompt, "--home", self.device(name), *options)
        return triparty("device", *words)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def new_cloud(folder: Path) -> Cloud:
    folder.mkdir(parents=True)
    cloud = Cloud(folder, f"https://127.0.0.1:{free_port()}")
    words = ("--data", cloud.data, "--url", cloud.url, "--self-signed")
    triparty("cloud", "init", *words)
    cloud.start()
    return cloud
