"""A whole site for hours: the gateway as a process, and sixteen cameras that fail."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import httpx
import pytest
from rtsp_server import CLOCK_HZ, Camera, Film, Mode

CLIPS = ("one-by-one-person-detection", "car-detection", "bottle-detection")
PLACES = ("hall", "yard", "counter")
CAMERAS = 16
PASSWORD = "correct horse battery"
BALLAST = "ballast"
START_S = ASK_S = 120.0
CONFIG = """\
[gate]
budget_ms = 10
audit_share = 0.02

[defaults]
timeout_s = 3.0
stall_s = 1.0
retry_s = 0.1
retry_longest_s = 1.0
before_s = 2
after_s = 2

{cameras}
[[models]]
name = "objects"
file = {objects!r}
labels = "coco"
least_score = 0.6

[[models]]
name = "faces"
file = {faces!r}
labels = ["face"]
least_score = 0.7

[[tasks]]
name = "persons"
model = "objects"
measure = "count"
classes = ["person"]

[[tasks]]
name = "cars"
model = "objects"
measure = "count"
classes = ["car"]

[[tasks]]
name = "faces"
model = "faces"
measure = "presence"

[results]
database = {database!r}
clips = {clips!r}
clips_mib = 6
snapshots = {snapshots!r}
snapshots_mib = 2

[page]
port = 0

[ask]
model = "sentences"

[ask.descriptions]
person = "somebody, people"

[[webhooks]]
name = "alarm"
url = "http://127.0.0.1:{hook}/"
secret_file = "key"
allow = ["127.0.0.1"]
"""


def write_site(
    folder: Path, disk: Path, cameras: Sequence[Camera], detectors: Path, hook: int
) -> Path:
    """Writes what is watched; all that is recorded goes to `disk`."""
    rows = []
    for number, camera in enumerate(cameras):
        place = PLACES[number % len(PLACES)]
        tasks = '["persons", "faces"]' if place == "hall" else '["persons", "cars"]'
        name = f"{place} {number}"
        rows.append(
            f'[[cameras]]\nname = "{name}"\nurl = "{camera.url}"\ntasks = {tasks}\n'
            "[cameras.ffmpeg]\nanalyzeduration = '100000'\n"
        )
    text = CONFIG.format(
        cameras="\n".join(rows),
        objects=str(detectors / "FastestDet.onnx"),
        faces=str(detectors / "version-RFB-320.onnx"),
        database=str(disk / "results.db"),
        clips=str(disk / "clips"),
        snapshots=str(disk / "snapshots"),
        hook=hook,
    )
    folder.mkdir()
    (folder / "key").write_text("a key that both sides have")
    (folder / "watch.toml").write_text(text)
    return folder / "watch.toml"


@contextmanager
def small_disk(folder: Path, mib: int) -> Iterator[Path]:
    """A file system of so many megabytes; skips where none may be mounted."""
    folder.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", f"size={mib}m", "tmpfs", str(folder)]
    mounted = subprocess.run(words, capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"this machine mounts no tmpfs: {mounted.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(disk: Path) -> None:
    """Takes all the room that is left."""
    with (disk / BALLAST).open("ab", buffering=0) as file:
        try:
            while True:
                file.write(bytes(1 << 16))
        except OSError:
            pass
        try:
            while True:
                file.write(bytes(512))
        except OSError:
            pass


@contextmanager
def cameras(clips: Path, speed: float) -> Iterator[list[Camera]]:
    """Sixteen cameras that play three real clips again and again."""
    films = [Film.of(clips / f"{name}.mp4", limit=10_000) for name in CLIPS]
    made = [Camera(films[number % len(films)], speed=speed) for number in range(CAMERAS)]
    for one in made:
        one.listen()
    try:
        yield made
    finally:
        for one in made:
            one.close()


class Trouble:
    """Has cameras fail and return, one after another, until it is told to stop."""

    WAYS = (Mode.CLOSE, Mode.STALL, Mode.CORRUPT, Mode.TRICKLE, None)  # None: nobody listens

    def __init__(self, watched: Sequence[Camera], *, every_s: float, lasts_s: float) -> None:
        self.done = 0
        self._cameras, self._every_s, self._lasts_s = watched, every_s, lasts_s
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def stop(self) -> None:
        """All cameras are well from now on."""
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        rng = random.Random(3)
        while not self._stopping.wait(self._every_s):
            camera, way = rng.choice(self._cameras), self.WAYS[self.done % len(self.WAYS)]
            if way is None:
                camera.refuse()
            else:
                camera.mode, camera.after = way, 10
                camera.hang_up()
            self._stopping.wait(self._lasts_s)
            camera.mode = Mode.OK
            if way is None:
                camera.listen()
            camera.hang_up()
            self.done += 1


class Site:
    """The gateway as a process; what it told, and what its page says.

    Args:
        file: configuration.
        home: of the device that asks.
        films: of the cameras by place in the file, to tell how much film came.

    Attributes:
        told: events that standard output told of, of all processes.
        film_s: seconds of film that earlier processes took, mean over cameras.
    """

    def __init__(self, file: Path, home: Path, watched: Sequence[Camera]) -> None:
        self._file, self._home = file, home
        self._frame_s = [camera.film.step / CLOCK_HZ for camera in watched]
        self.told: list[dict[str, Any]] = []
        self.said: list[str] = []
        self.film_s = 0.0

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(30)

    def start(self) -> None:
        """Starts it, and logs in to its page."""
        words = ("device", "watch", str(self._file), "--home", str(self._home), "--json")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "triparty.common", *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._page, self._threads = threading.Event(), []
        for target in (self._hear, self._hear_errors):
            thread = threading.Thread(target=target, args=(self.process,), daemon=True)
            thread.start()
            self._threads.append(thread)
        assert self._page.wait(START_S), self.said[-20:]
        self.client = httpx.Client(base_url=self.url, timeout=30, headers={"Origin": self.url})
        form = {"secret": PASSWORD, "next": "/"}
        assert self.client.post("/login", data=form).status_code == 303
        word = re.search(r'data-csrf="([^"]*)"', self.client.get("/").text)
        assert word is not None
        self.client.headers["X-CSRF-Token"] = word.group(1)

    def end(self, how: signal.Signals) -> int:
        """Ends it; returns its exit code."""
        self.film_s = self.film_now()
        self.client.close()
        self.process.send_signal(how)
        code = self.process.wait(120)
        for thread in self._threads:
            thread.join(30)
        for stream in (self.process.stdout, self.process.stderr):
            assert stream is not None
            stream.close()
        return code

    def live(self) -> dict[str, Any]:
        """How everything stands, by the page."""
        answer = self.client.get("/api/live")
        assert answer.status_code == 200
        document: dict[str, Any] = answer.json()
        return document

    def ask(self, question: str) -> httpx.Response:
        """The page's answer to a question."""
        return self.client.post("/api/ask", json={"question": question}, timeout=ASK_S)

    def film_now(self) -> float:
        """Seconds of film that were taken: packets by their own length, mean over cameras."""
        packets = [camera["packets"] for camera in self.live()["cameras"]]
        seconds = [n * s for n, s in zip(packets, self._frame_s, strict=True)]
        return self.film_s + sum(seconds) / len(seconds)

    def resident_mib(self) -> float:
        """Memory of the process."""
        with open(f"/proc/{self.process.pid}/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / (1 << 20)

    def _hear(self, process: subprocess.Popen[str]) -> None:
        for line in process.stdout or ():
            if line.endswith("\n") and '"type": "event"' in line:
                self.told.append(json.loads(line))

    def _hear_errors(self, process: subprocess.Popen[str]) -> None:
        for line in process.stderr or ():
            self.said.append(line.rstrip())
            if line.startswith("page on "):
                self.url = line.removeprefix("page on ").strip().rstrip("/")
                self._page.set()


class Watcher:
    """Looks at the page all the time, as a browser does, until it is told to stop."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.waits_s: list[float] = []
        self.memory_mib: list[float] = []
        self.failed: list[str] = []
        self.stale = 0
        self.paused = threading.Event()  # while there is no gateway
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def stop(self) -> None:
        """Looks no more."""
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopping.wait(1.0):
            if self.paused.is_set():
                continue
            began = time.monotonic()
            try:
                live = self.site.live()
            except (httpx.HTTPError, AssertionError) as error:
                if not self.paused.is_set():
                    self.failed.append(repr(error))
                continue
            self.waits_s.append(time.monotonic() - began)
            self.stale += bool(live["is_stale"])
            self.memory_mib.append(self.site.resident_mib())
