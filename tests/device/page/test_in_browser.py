"""The gateway's page in a real browser: errors, access, keyboard, phones, light and dark."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from browsing import (
    PHONE,
    RULES,
    assert_everybody_can_use,
    axe_script,
    chromium,
    is_wide,
    needs_chromium,
    new_tab,
)
from made_page import CAMERAS, PASSWORD, MadePage, gateway_status

from triparty.device.gateway.stages import StageCount
from triparty.device.page.server import PageServer

pytestmark = needs_chromium
PATHS = (
    "/",
    "/events?camera=yard&kind=enter",
    "/events/1",
    "/cameras/yard",
    "/ask",
    "/settings",
    "/nothing",
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as launched:
        yield launched


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> MadePage:
    made = MadePage(tmp_path_factory.mktemp("page"))
    made.hear(60, gateway_status)
    return made


@pytest.fixture(scope="module")
def url(made: MadePage) -> Iterator[str]:
    assert made.settings.page is not None
    server = PageServer(made.app(), made.settings.page, made.settings.folder)
    yield server.url.rstrip("/")
    server.stop()


@pytest.fixture(scope="module")
def cookies(browser: Any, url: str) -> Any:
    """Of somebody who is logged in."""
    context = browser.new_context()
    page = context.new_page()
    page.goto(f"{url}/")
    page.get_by_label("Password").fill(PASSWORD)
    page.keyboard.press("Enter")
    page.wait_for_url(f"{url}/")
    state = context.storage_state()
    context.close()
    return state


@pytest.fixture
def page(browser: Any, cookies: Any) -> Iterator[Any]:
    """A tab of somebody who is logged in; nothing may be said on its console."""
    tab = new_tab(browser, storage_state=cookies)
    yield tab
    said, expected = tab.said, getattr(tab, "expected", None)
    tab.context.close()
    assert [line for line in said if not (expected and re.search(expected, line))] == []


@pytest.fixture(scope="module")
def axe() -> str:
    return axe_script()


@pytest.mark.parametrize("path", PATHS)
def test_everybody_can_use_it(page: Any, url: str, axe: str, path: str) -> None:
    page.expected = "404" if path == "/nothing" else None
    page.goto(url + path)
    page.evaluate(axe)
    assert_everybody_can_use(page)


def test_axe_would_find_something(page: Any, url: str, axe: str) -> None:
    page.goto(f"{url}/events?kind=enter&camera=yard")
    page.evaluate(axe)
    page.evaluate("document.querySelector('label[for=camera]').remove()")
    page.evaluate("document.querySelector('main').prepend(document.createElement('img'))")
    page.evaluate("document.querySelector('main h1').style.color = '#ccc'")
    found = page.evaluate("rules => axe.run(document, {runOnly: rules})", RULES)
    assert {"select-name", "image-alt"} <= {one["id"] for one in found["violations"]}


def test_the_login_is_for_everybody(browser: Any, url: str, axe: str) -> None:
    context = browser.new_context(viewport=PHONE, color_scheme="dark")
    tab = context.new_page()
    tab.goto(f"{url}/events?kind=enter")
    tab.wait_for_function("document.activeElement.id === 'secret'")
    tab.keyboard.type("wrong password")
    tab.keyboard.press("Enter")
    tab.get_by_role("alert").wait_for()
    assert not is_wide(tab)
    tab.evaluate(axe)
    found = tab.evaluate("rules => axe.run(document, {runOnly: rules})", RULES)
    assert found["violations"] == []
    tab.keyboard.type(PASSWORD)
    tab.keyboard.press("Enter")
    tab.wait_for_url(f"{url}/events?kind=enter")
    tab.get_by_role("button", name="Log out").click()
    tab.wait_for_url(f"{url}/login")
    tab.goto(f"{url}/")
    assert "/login" in tab.url
    context.close()


def test_everything_is_reached_by_keyboard(page: Any, url: str) -> None:
    page.goto(f"{url}/")
    wanted = page.evaluate(
        "[...document.querySelectorAll('a[href], button, input:not([type=hidden])')]"
        ".filter(each => each.checkVisibility()).length"
    )
    reached, bare = 0, []
    for _ in range(wanted):
        page.keyboard.press("Tab")
        tag, outline, name = page.evaluate(
            "(() => { const e = document.activeElement; const s = getComputedStyle(e);"
            "return [e.tagName, s.outlineStyle + s.outlineWidth, e.textContent] })()"
        )
        reached += tag in ("A", "BUTTON", "INPUT")
        if outline.startswith("none") or outline.endswith("0px"):
            bare.append(name)
    assert reached == wanted
    assert bare == [], "where the focus is must be seen"
    page.goto(f"{url}/")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"


def test_the_page_keeps_itself_fresh_and_the_focus(page: Any, url: str, made: MadePage) -> None:
    from playwright.sync_api import expect

    page.goto(f"{url}/")
    link = page.locator('[data-field="newest"] a').first
    link.focus()
    status = gateway_status(70.0)
    changed = [replace(one, answers={"people": 4711}) for one in status.cameras]
    made.feed.hear(replace(status, cameras=changed, refused="<i>no such camera</i>"))
    page.get_by_text("4711").first.wait_for()
    assert page.get_by_text("<i>no such camera</i>").count() == 1
    assert page.evaluate("document.activeElement.tagName") == "A"
    stages = {**status.stages, "plates <b>": StageCount(1, cpu_ms=9e4)}
    made.clock.now += 1
    made.feed.hear(replace(status, cameras=changed, stages=stages))
    row = page.get_by_role("row").filter(has_text="plates <b>")
    expect(row).not_to_have_count(0)
    made.feed.hear(replace(status, cameras=changed[:2]))
    expect(page.locator("#cards > li")).to_have_count(2)
    made.feed.hear(status)
    expect(page.locator("#cards > li")).to_have_count(len(CAMERAS))


def test_the_plots_are_drawn(page: Any, url: str) -> None:
    page.goto(f"{url}/")
    page.locator('[data-plot="saved"] polyline').first.wait_for(state="attached")
    assert "people: 91 %" in page.locator('[data-plot="recall"]').inner_text()
    assert page.locator('[data-plot="recall"] polygon').count() == 1


def test_colours_are_chosen_and_kept(page: Any, url: str) -> None:
    def back() -> str:
        return str(page.evaluate("getComputedStyle(document.body).backgroundColor"))

    page.emulate_media(color_scheme="light")
    page.goto(f"{url}/ask")
    light = back()
    page.emulate_media(color_scheme="dark")
    dark = back()
    assert light != dark
    button = page.get_by_role("button", name="Colours")
    button.click()
    assert (button.inner_text(), back()) == ("Colours: light", light)
    page.reload()
    assert back() == light
    button.click()
    page.emulate_media(color_scheme="light")
    assert (button.inner_text(), back()) == ("Colours: dark", dark)


def test_no_inline_script_runs(page: Any, url: str) -> None:
    page.expected = "Content Security Policy"
    page.goto(f"{url}/ask")
    page.evaluate(
        "(() => { const s = document.createElement('script'); s.textContent = 'window.ran = 1';"
        "document.body.append(s); const i = document.createElement('img');"
        "i.setAttribute('onerror', 'window.ran = 2'); i.src = '/nothing';"
        "document.body.append(i)"
        "})()"
    )
    page.wait_for_timeout(200)
    assert page.evaluate("window.ran") is None
    assert any("Content Security Policy" in line for line in page.said)
    page.said = [line for line in page.said if "404" not in line]


def test_zones_are_drawn_by_pointer_and_keyboard(page: Any, url: str, made: MadePage) -> None:
    def polygon() -> list[list[float]]:
        return [list(corner) for corner in made.settings.cameras[0].zones[0].polygon]

    before = polygon()
    page.goto(f"{url}/cameras/yard")
    corner = page.get_by_role("button", name="Corner 1 of gate")
    corner.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Shift+ArrowDown")
    assert corner.get_attribute("aria-label").endswith("11 % from the left, 15 % from the top")
    page.get_by_role("button", name="Corner 3 of gate").focus()
    page.keyboard.press("Insert")
    box = page.locator(".picture").bounding_box()
    handle = page.get_by_role("button", name="Corner 2 of gate").bounding_box()
    page.mouse.move(handle["x"] + handle["width"] / 2, handle["y"] + handle["height"] / 2)
    page.mouse.down()
    page.mouse.move(box["x"] + 0.8 * box["width"], box["y"] + 0.25 * box["height"], steps=4)
    page.mouse.up()
    page.get_by_role("button", name="Save zones").click()
    page.get_by_text("Written; the gateway").wait_for()
    after = polygon()
    assert len(after) == len(before) + 1
    assert after[0] == pytest.approx([before[0][0] + 0.01, before[0][1] + 0.05])
    assert after[1] == pytest.approx([0.8, 0.25], abs=0.01)
    assert after[3] == pytest.approx(
        [(before[2][0] + after[0][0]) / 2, (before[2][1] + after[0][1]) / 2], abs=0.002
    )
    page.get_by_role("button", name="New zone").click()
    page.get_by_label("Name of zone 2").fill("bad/name")
    page.expected = "400"
    page.get_by_role("button", name="Save zones").click()
    page.get_by_text("Nothing was changed").wait_for()
    assert polygon() == after


def test_masks_are_drawn_by_keyboard_and_checked(
    page: Any, url: str, made: MadePage, axe: str
) -> None:
    def masks() -> list[list[list[float]]]:
        return [[list(at) for at in one.polygon] for one in made.settings.cameras[1].masks]

    def press(button: str, *keys: str) -> None:
        page.get_by_role("button", name=button).focus()
        for key in keys:
            page.keyboard.press(key)

    page.goto(f"{url}/cameras/door")
    page.evaluate(axe)
    press("New mask", "Enter")
    assert page.evaluate("document.activeElement.ariaLabel").startswith("Corner 1 of mask 1")
    page.keyboard.press("ArrowRight")
    assert_everybody_can_use(page)
    press("Save zones and masks", "Enter")
    page.get_by_text("Written; the gateway").wait_for()
    assert masks() == [[[0.31, 0.3], [0.7, 0.3], [0.7, 0.7], [0.3, 0.7]]]
    page.reload()
    told = page.get_by_role("button", name="Corner 1 of mask 1").get_attribute("aria-label")
    assert "31 % from the left, 30 % from the top" in told
    press("New zone", "Enter")
    press("Draw mask 1", "Enter")
    press("Corner 1 of mask 1", *["Shift+ArrowRight"] * 12, *["Shift+ArrowDown"] * 4)
    page.expected = "400"
    press("Save zones and masks", "Enter")
    page.get_by_text("Nothing was changed").wait_for()
    assert masks()[0][0] == [0.31, 0.3], "its sides cross: refused"
    assert made.settings.cameras[1].zones == ()
    press("Remove mask 1", "Enter")
    press("Save zones and masks", "Enter")
    page.get_by_text("Written; the gateway").wait_for()
    assert masks() == []
    assert [zone.name for zone in made.settings.cameras[1].zones] == ["zone 1"]
