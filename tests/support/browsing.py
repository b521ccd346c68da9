"""Chromium for tests: a quiet one, axe-core, and what pages say on the console."""

from __future__ import annotations

import os
import shutil
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
needs_chromium = pytest.mark.skipif(
    CHROMIUM is None and not os.environ.get("CI"),
    reason="chromium is not installed (apt-get install chromium)",
)
QUIET = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
DESK, PHONE = {"width": 1280, "height": 900}, {"width": 360, "height": 740}
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]


LIMIT_S = 600.0


@contextmanager
def chromium() -> Iterator[Any]:
    """A browser while the block runs, for a limited time.

    Playwright waits for its driver and for scripts of pages without a limit, in a loop of its
    own that no signal ends well. When the driver is gone, whatever waits for it fails.
    """
    assert CHROMIUM is not None, "chromium is not installed (apt-get install chromium)"
    from playwright.sync_api import sync_playwright

    limit = threading.Timer(LIMIT_S, end_driver)
    limit.start()
    try:
        with sync_playwright() as playwright:
            launched = playwright.chromium.launch(executable_path=CHROMIUM, args=list(QUIET))
            yield launched
            launched.close()
    finally:
        limit.cancel()


def end_driver() -> None:
    """Kills Playwright's driver, a child of this process."""
    for children in Path("/proc/self/task").glob("*/children"):
        for child in children.read_text().split():
            if b"playwright" in Path("/proc", child, "cmdline").read_bytes():
                os.kill(int(child), signal.SIGKILL)


def new_tab(browser: Any, **context: Any) -> Any:
    """A tab in a context of its own; `said` has its console, errors and foreign requests."""
    tab = browser.new_context(viewport=DESK, reduced_motion="reduce", **context).new_page()
    tab.said = []
    tab.on("console", lambda said: tab.said.append(f"{said.type}: {said.text}"))
    tab.on("pageerror", lambda error: tab.said.append(f"error: {error}"))
    tab.on(
        "request",
        lambda request: (
            tab.said.append(f"foreign: {request.url}")
            if not request.url.startswith("http://127.0.0.1:")
            else None
        ),
    )
    return tab


def axe_script() -> str:
    """axe-core, to be evaluated in a page."""
    import axe_core_python

    (found,) = Path(axe_core_python.__file__).parent.rglob("axe.min.js")
    return found.read_text("utf-8")


def is_wide(page: Any) -> bool:
    """Whether it scrolls sideways."""
    return bool(page.evaluate("document.documentElement.scrollWidth > innerWidth"))


def assert_everybody_can_use(page: Any) -> None:
    """axe finds nothing, and nothing is too wide: light at a desk, dark on a phone."""
    for scheme, size in (("light", DESK), ("dark", PHONE)):
        page.emulate_media(color_scheme=scheme)
        page.set_viewport_size(size)
        assert not is_wide(page), (page.url, size)
        found = page.evaluate("rules => axe.run(document, {runOnly: rules})", RULES)
        assert found["passes"], "axe looked at nothing"
        broken = [(v["id"], [node["html"] for node in v["nodes"]]) for v in found["violations"]]
        assert broken == [], (page.url, scheme)
