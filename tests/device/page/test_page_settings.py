"""What may be changed from the page is changed, and nothing else ever."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
from made_page import CONFIG, PASSWORD, MadePage
from visited_page import ORIGIN, Visitor

SQUARE = [[0.1, 0.2], [0.9, 0.2], [0.9, 0.8], [0.1, 0.8]]


@pytest.fixture
def made(tmp_path: Path) -> MadePage:
    return MadePage(tmp_path)


@pytest.fixture
def visitor(made: MadePage) -> Visitor:
    known = Visitor(made.app())
    assert known.log_in(PASSWORD).status_code == 303
    return known


def file(made: MadePage) -> str:
    return (made.settings.folder / "watch.toml").read_text()


def document(made: MadePage) -> dict[str, Any]:
    return tomllib.loads(file(made))


def seen(visitor: Visitor) -> str:
    return str(visitor.get("/api/settings").json()["seen"])


def full_form(visitor: Visitor, **changes: str) -> dict[str, str]:
    """The form of the settings as a browser sends it."""
    form = {
        "csrf": visitor.word(),
        "seen": seen(visitor),
        "budget_ms": "20.0",
        "task/people/events": "yes",
        "task/people/hold_s": "0.5",
        "task/people/looks": "2",
        "model/objects/least_score": "0.35",
    }
    return form | changes


def test_a_form_that_changes_nothing_changes_nothing(made: MadePage, visitor: Visitor) -> None:
    assert visitor.post("/settings", full_form(visitor)).status_code == 303
    assert file(made) == CONFIG


def test_thresholds_and_budget_are_changed(made: MadePage, visitor: Visitor) -> None:
    changes = {
        "budget_ms": "12.5",
        "task/people/looks": "4",
        "model/objects/least_score": "0.5",
    }
    form = full_form(visitor, **changes)
    del form["task/people/events"]  # as browsers send a box that is not ticked
    answer = visitor.post("/settings", form)
    assert (answer.status_code, answer.headers["location"]) == (303, "/settings?saved=yes")
    now = document(made)
    assert now["gate"]["budget_ms"] == 12.5
    assert now["tasks"][0] == {
        "name": "people",
        "model": "objects",
        "measure": "count",
        "looks": 4,
        "events": False,
    }
    assert now["models"][0]["least_score"] == 0.5
    assert made.settings.gate.budget_ms == 12.5, "the gateway was asked to read it"
    assert "# what the owner wrote" in file(made)


@pytest.mark.parametrize(
    "changes",
    [
        {"budget_ms": "-1"},
        {"budget_ms": "many"},
        {"budget_ms": "nan"},
        {"task/people/looks": "0"},
        {"task/people/hold_s": "1e9"},
        {"model/objects/least_score": "2"},
    ],
)
def test_values_that_cannot_be_are_refused(
    made: MadePage, visitor: Visitor, changes: dict[str, str]
) -> None:
    answer = visitor.post("/settings", full_form(visitor, **changes))
    assert answer.status_code == 400
    assert "Nothing was changed" in answer.text
    assert file(made) == CONFIG


def test_a_file_that_was_changed_meanwhile_is_not_overwritten(
    made: MadePage, visitor: Visitor
) -> None:
    form = full_form(visitor, budget_ms="5")
    path = made.settings.folder / "watch.toml"
    path.write_text(CONFIG + "\n# by hand\n")
    assert visitor.post("/settings", form).status_code == 409
    assert file(made).endswith("# by hand\n")


def test_cameras_come_change_and_go(made: MadePage, visitor: Visitor) -> None:
    def form(**more: str) -> dict[str, str]:
        return {"csrf": visitor.word(), "seen": seen(visitor), **more}

    new = form(name="attic", url="rtsps://10.0.0.9/stream")
    assert visitor.post("/settings/cameras", new).status_code == 303
    assert document(made)["cameras"][-1] == {"name": "attic", "url": "rtsps://10.0.0.9/stream"}
    assert (
        visitor.post("/settings/cameras", form(name="attic", url="rtsps://x/")).status_code
        == 400
    )
    changed = form(url="rtsps://10.0.0.10/stream", before_s="9", looks_per_s="5.0", after_s="")
    answer = visitor.post("/settings/cameras/attic", changed)
    assert answer.headers["location"] == "/cameras/attic?saved=yes"
    assert document(made)["cameras"][-1] == {
        "name": "attic",
        "url": "rtsps://10.0.0.10/stream",
        "before_s": 9.0,
    }
    assert visitor.post("/settings/cameras/attic/remove", form()).status_code == 303
    assert [one["name"] for one in document(made)["cameras"]] == [
        "yard",
        "door",
        "hall",
        "roof",
    ]
    assert visitor.post("/settings/cameras/attic/remove", form()).status_code == 404


@pytest.mark.parametrize(
    "url",
    [
        "/etc/passwd",
        "file:///etc/passwd",
        "concat:a|b",
        "pipe:0",
        "gopher://x/",
        "clip.mp4",
        "",
    ],
)
def test_no_camera_is_a_file_of_this_machine(
    made: MadePage, visitor: Visitor, url: str
) -> None:
    form = {"csrf": visitor.word(), "seen": seen(visitor), "name": "new", "url": url}
    assert visitor.post("/settings/cameras", form).status_code == 400
    assert file(made) == CONFIG


def test_no_password_is_shown_or_lost(made: MadePage, visitor: Visitor) -> None:
    for path in ("/settings", "/cameras/yard", "/api/settings"):
        text = visitor.get(path).text
        assert "s3cret" not in text, path
        assert "10.0.0.7" in text, path
    form = {
        "csrf": visitor.word(),
        "seen": seen(visitor),
        "url": visitor.get("/api/settings").json()["edit"]["cameras"]["yard"]["url"],
        "after_s": "7",
    }
    assert visitor.post("/settings/cameras/yard", form).status_code == 303
    assert document(made)["cameras"][0]["url"] == "rtsps://viewer:s3cret@10.0.0.7/stream"
    assert document(made)["cameras"][0]["after_s"] == 7


def test_zones_are_changed_by_scripts(made: MadePage, visitor: Visitor) -> None:
    zones = [{"name": "path", "polygon": SQUARE}]
    edit = {"edit": {"cameras": {"yard": {"zones": zones}}}, "seen": seen(visitor)}
    answer = visitor.send("PATCH", "/api/settings", edit)
    assert answer.status_code == 200
    assert document(made)["cameras"][0]["zones"] == zones
    assert answer.json()["edit"]["cameras"]["yard"]["zones"][0]["name"] == "path"
    assert answer.json()["seen"] == seen(visitor)
    assert visitor.send("PATCH", "/api/settings", edit).status_code == 409


@pytest.mark.parametrize(
    "edit",
    [
        {"models": {"objects": {"python": "os:system"}}},
        {"models": {"objects": {"file": "/etc/passwd"}}},
        {"results": {"clips": "/"}},
        {"page": {"host": "0.0.0.0"}},
        {"webhooks": []},
        {"gate": {"policy": "random"}},
        {"tasks": {"people": {"model": "other"}}},
        {"tasks": {"nobody": {"looks": 1}}},
        {"cameras": {"yard": {"password_file": "/etc/shadow"}}},
        {"cameras": {"yard": {"ffmpeg": {"f": "lavfi"}}}},
        {"cameras": {"yard": {"url": "file:///etc/passwd"}}},
        {"cameras": {"yard": {"zones": [{"name": "x", "polygon": [[0, 0], [1, 1]]}]}}},
        {"cameras": {"yard": {"zones": [{"name": "x", "polygon": [[0, 0], [9, 0], [1, 1]]}]}}},
        {"cameras": {"../x": {"url": "rtsps://x/"}}},
        {"budget_ms": "s3cret-not-a-number"},
        [],
        None,
        "text",
    ],
)
def test_nothing_else_is_changed(made: MadePage, visitor: Visitor, edit: Any) -> None:
    answer = visitor.send("PATCH", "/api/settings", {"edit": edit, "seen": seen(visitor)})
    assert answer.status_code in (400, 404)
    assert "s3cret" not in answer.text
    assert file(made) == CONFIG


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"edit": {}, "more": 1}', b'{"seen": 1}'])
def test_bodies_that_are_none_are_refused(
    made: MadePage, visitor: Visitor, body: bytes
) -> None:
    headers = {"Origin": ORIGIN, "X-CSRF-Token": visitor.word()}
    answer = visitor.request("PATCH", "/api/settings", content=body, headers=headers)
    assert answer.status_code == 400
    assert file(made) == CONFIG


def test_other_pages_change_no_settings(made: MadePage, visitor: Visitor) -> None:
    form = full_form(visitor, budget_ms="1")
    edit = {"edit": {"budget_ms": 1}}
    evil = {"Origin": "https://evil.example"}
    assert visitor.post("/settings", form, **evil).status_code == 403
    assert visitor.post("/settings", {**form, "csrf": ""}).status_code == 403
    assert visitor.send("PATCH", "/api/settings", edit, **evil).status_code == 403
    plain = {"Origin": ORIGIN}
    answer = visitor.request("PATCH", "/api/settings", json=edit, headers=plain)
    assert answer.status_code == 403
    assert file(made) == CONFIG
