"""How soon web pages can be used, in Chromium on loopback: the gateway's and the operator's.

Cases for the suite `system`. From asking for a page to the end of DOMContentLoaded: scripts
have run, everything answers to clicks and keys. Each visit begins with an empty cache. The
gateway has sixteen cameras on real clips and what they recorded, the cloud a hundred models.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.clouds import fill, new_cloud, serving
from benchmarks.gating_exactness import CLIPS, clips_folder
from benchmarks.gating_traces import data
from benchmarks.harness import BenchError, Case, Effort, case
from triparty.common.pages.passwords import PasswordHash
from triparty.device.gateway.clock import VirtualClock
from triparty.device.gateway.editing import Editor
from triparty.device.gateway.settings import WatchSettings
from triparty.device.gateway.watching import make_gateway
from triparty.device.page.showing import page_beside

CAMERAS = 16
FILM_S = 20.0
PASSWORD = "correct horse battery"
QUIET = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
OF_GATEWAY = ("/", "/events", "/ask", "/settings", "/cameras/camera%200")
OF_CLOUD = ("/operator/", "/operator/models", "/operator/accounts", "/operator/jobs")
INTERACTIVE = "performance.getEntriesByType('navigation')[0].domContentLoadedEventEnd"


def slowest_s(url: str, paths: Sequence[str], secret: str, effort: Effort) -> Iterator[float]:
    """Seconds until the slowest of some pages can be used, a visit of all of them a run.

    Raises:
        BenchError: no Chromium, a page that fails, or one that says something on its console.
    """
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        raise BenchError("chromium is not installed (apt-get install chromium)")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=list(QUIET))
        state = _logged_in(browser, url, paths[0], secret)
        for _ in range(effort.runs):
            yield max(_visit(browser, state, url + path) for path in paths)
        browser.close()


def _logged_in(browser: Any, url: str, path: str, secret: str) -> Any:
    context = browser.new_context(ignore_https_errors=True)
    tab = context.new_page()
    tab.goto(url + path)
    tab.locator("#secret").fill(secret)
    tab.keyboard.press("Enter")
    tab.wait_for_url(url + path)
    state = context.storage_state()
    context.close()
    return state


def _visit(browser: Any, state: Any, address: str) -> float:
    context = browser.new_context(storage_state=state, ignore_https_errors=True)
    tab, said = context.new_page(), list[str]()
    tab.on("console", lambda one: said.append(f"{one.type}: {one.text}"))
    tab.on("pageerror", lambda error: said.append(f"error: {error}"))
    answer = tab.goto(address)
    spent: float = tab.evaluate(INTERACTIVE) / 1000
    context.close()
    if answer.status != 200 or said:
        raise BenchError(f"{address}: answered {answer.status}, said {said}")
    return spent


@contextmanager
def watched() -> Iterator[str]:
    """The address of a gateway's page, after cameras were watched for a while."""
    with tempfile.TemporaryDirectory() as name:
        file = Path(name) / "watch.toml"
        file.write_text(_configuration(), encoding="utf-8")
        PasswordHash.of(PASSWORD).write(file.with_name("page.password"))
        settings = WatchSettings.load(file)
        gateway = make_gateway(settings, clock=VirtualClock())
        editor = Editor(
            file,
            parse=partial(WatchSettings.parse, file=file),
            running=lambda: settings,
            ask=lambda: None,
        )
        said = list[str]()
        if settings.page is None:
            raise BenchError("the configuration has no page")
        try:
            with page_beside(gateway, settings.page, editor=editor, say=said.append) as told:
                gateway.run(seconds=FILM_S, told=told)
                yield said[0].removeprefix("page on ").rstrip("/")
        finally:
            gateway.close()


def _configuration() -> str:
    cameras = "\n".join(
        f'[[cameras]]\nname = "camera {number}"\nloop = true\n'
        f'url = "{clips_folder() / CLIPS[number % len(CLIPS)]}.mp4"\n'
        for number in range(CAMERAS)
    )
    return f"""
[gate]
budget_ms = 1.5
{cameras}
[[models]]
name = "objects"
file = "{data() / "models" / "detectors" / "FastestDet.onnx"}"
labels = "coco"
least_score = 0.6
[[tasks]]
name = "persons"
model = "objects"
measure = "count"
classes = ["person"]
[results]
database = "results.db"
clips = "clips"
snapshots = "snapshots"
[page]
port = 0
"""


@case(
    f"page of a gateway with {CAMERAS} cameras: the slowest of its {len(OF_GATEWAY)} parts, "
    "until it can be used",
    unit="s",
    better="lower",
    target=1.0,
    reference="design target; Chromium, loopback, empty cache",
)
def gateway_page(effort: Effort) -> Iterator[float]:
    """Seconds."""
    with watched() as url:
        yield from slowest_s(url, OF_GATEWAY, PASSWORD, effort)


@case(
    f"operator's page of a cloud with 100 models: the slowest of its {len(OF_CLOUD)} parts, "
    "until it can be used",
    unit="s",
    better="lower",
    target=1.0,
    reference="design target; Chromium, loopback, empty cache",
)
def operator_page(effort: Effort) -> Iterator[float]:
    """Seconds."""
    with tempfile.TemporaryDirectory() as name:
        folder, home, token = new_cloud(Path(name))
        fill(folder, home, 100)
        with serving(folder) as url:
            yield from slowest_s(url, OF_CLOUD, token, effort)


PAGES: tuple[Case, ...] = (gateway_page, operator_page)
"""The cases, for the suite."""
