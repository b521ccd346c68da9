"""The operator's page in a real browser: usable by everybody, silent, closed to other pages."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from browsing import assert_everybody_can_use, axe_script, chromium, needs_chromium, new_tab

from triparty.cloud.page.app import OPERATOR_PATH
from triparty.device.gateway.settings import PageSettings
from triparty.device.page.server import PageServer

pytestmark = [needs_chromium, pytest.mark.one_database]
PATHS = ("/", "/models", "/accounts", "/jobs")
HEADERS = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",
    "cache-control": "no-store",
}


@pytest.fixture
def served(cloud: Any, developer: Any, device: Any, tmp_path: Path) -> Iterator[str]:
    """Where the page is, of a cloud with accounts and models."""
    files = {"config.json": b"{}"}
    assert developer.publish(files).status_code == 201
    assert developer.publish(files, version=2, epoch=7).status_code == 201
    cloud.developer("<b>other</b>")
    server = PageServer(cloud.app, PageSettings(port=0), tmp_path)
    yield server.url.rstrip("/") + OPERATOR_PATH
    server.stop()


def test_the_operators_page_in_a_browser(cloud: Any, developer: Any, served: str) -> None:
    axe = axe_script()
    with chromium() as browser:
        tab = new_tab(browser)
        tab.goto(f"{served}/accounts")
        tab.wait_for_function("document.activeElement.id === 'secret'")
        tab.evaluate(axe)
        assert_everybody_can_use(tab)
        tab.keyboard.type(cloud.operator)
        tab.keyboard.press("Enter")
        tab.wait_for_url(f"{served}/accounts")
        for path in PATHS:
            answer = tab.goto(served + path)
            assert answer.status == 200
            assert HEADERS.items() <= answer.headers.items(), path
            policy = answer.headers["content-security-policy"]
            assert "default-src 'none'" in policy
            assert "unsafe" not in policy
            tab.evaluate(axe)
            assert_everybody_can_use(tab)
        tab.goto(f"{served}/accounts")
        assert tab.get_by_text("<b>other</b>", exact=True).count() == 1, "a name is text"
        (cookie,) = tab.context.cookies()
        assert (cookie["httpOnly"], cookie["sameSite"]) == (True, "Strict")
        assert tab.evaluate("document.cookie") == ""
        row = tab.get_by_role("row").filter(has_text=developer.name).first
        row.get_by_text("Revoke").first.focus()
        tab.keyboard.press("Enter")
        sure = row.get_by_role("button", name="for good")
        sure.focus()
        tab.keyboard.press("Enter")
        row.get_by_text(re.compile(r"revoked \d{4}-\d{2}-\d{2}")).wait_for()
        assert developer.request("GET", "/v1/devices").status_code == 401
        assert tab.said == []


def test_a_file_of_the_page_is_none_of_the_cloud(served: str) -> None:
    for path in ("../../etc/passwd", "..%2f..%2fapp.py", "%2e%2e/cloud.toml", "page.css/.."):
        assert httpx.get(f"{served}/static/{path}").status_code in (303, 400, 401, 404)
