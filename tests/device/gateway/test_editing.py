"""A configuration is changed from outside in what may be, and in nothing else."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from triparty.common.errors import (
    ConflictError,
    NotFoundError,
    SettingsError,
    StateError,
    TripartyError,
)
from triparty.device.gateway.editing import Edit, Editor, edited
from triparty.device.gateway.settings import WatchSettings

CONFIG = """\
# what the owner wrote

[gate]
policy = "ours"       # a comment
budget_ms = 20

[[cameras]]
name = "yard"         # another
url = "rtsp://viewer@10.0.0.7/stream1"
password_file = "yard.password"

[[cameras.zones]]
name = "old"
polygon = [[0, 0], [1, 0], [1, 1]]

[[cameras]]
name = "hall"
url = "rtsp://me:s3cret@10.0.0.8/"

[[models]]
name = "objects"
python = "json:loads"

[[tasks]]
name = "people"
model = "objects"

[results]
database = "r.db"     # kept
"""
INLINE = """\
cameras = [{ name = "yard", url = "a.mp4" }, { name = "hall", url = "b.mp4" }]
[[models]]
name = "objects"
python = "json:loads"
[[tasks]]
name = "people"
model = "objects"
"""
LEFT = [[0.0, 0.0], [0.5, 0.0], [0.5, 1.0]]
ZONE = {"name": "left", "polygon": LEFT, "tasks": ["people"]}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "yard.password").write_text("hunter2")
    path = tmp_path / "watch.toml"
    path.write_text(CONFIG)
    path.chmod(0o644)
    return path


def editor(file: Path, ask: Callable[[], None] = lambda: None) -> Editor:
    running = WatchSettings.load(file)
    return Editor(
        file,
        parse=lambda text: WatchSettings.parse(text, file),
        running=lambda: running,
        ask=ask,
    )


def edit(**what: Any) -> Edit:
    return Edit.model_validate(what)


def test_what_may_change_changes_and_all_else_stays(file: Path) -> None:
    asked: list[bool] = []
    made = editor(file, lambda: asked.append(True))
    change = edit(
        budget_ms=35.5,
        cameras={
            "yard": {"zones": [ZONE], "masks": [{"polygon": LEFT}], "looks_per_s": 2},
            "hall": None,
            "door": {"url": "rtsps://10.0.0.9/", "zones": [ZONE | {"tasks": None}]},
        },
        tasks={"people": {"hold_s": 2, "looks": 5}},
        models={"objects": {"least_score": 0.6}},
    )
    after = made.apply(change, seen=made.read().digest)
    assert asked == [True]
    settings = WatchSettings.load(file)
    assert settings == after.settings == made.read().settings
    yard, door = settings.cameras
    assert (yard.name, door.name, door.url) == ("yard", "door", "rtsps://10.0.0.9/")
    assert [zone.name for zone in (*yard.zones, *door.zones)] == ["left", "left"]
    assert (yard.zones[0].tasks, door.zones[0].tasks) == (("people",), None)
    assert (settings.gate.budget_ms, yard.looks_per_s) == (35.5, 2)
    assert len(yard.masks) == 1
    assert (settings.tasks[0].hold_s, settings.tasks[0].looks) == (2, 5)
    text = file.read_text()
    for kept in ("# what the owner wrote", "# a comment", "# another", "# kept"):
        assert kept in text
    assert file.stat().st_mode & 0o777 == 0o644
    assert not [p for p in file.parent.iterdir() if p.name.endswith(".part")]
    made.apply(edit(cameras={"yard": {"zones": [], "masks": None, "name": "garden"}}))
    document = tomllib.loads(file.read_text())
    assert document["cameras"][0] == {
        "name": "garden",
        "url": "rtsp://viewer@10.0.0.7/stream1",
        "password_file": "yard.password",
        "looks_per_s": 2,
    }


def test_inline_tables_are_changed_too() -> None:
    text = edited(
        INLINE,
        edit(
            budget_ms=5,
            cameras={
                "yard": {"zones": [ZONE], "tasks": []},
                "hall": None,
                "new": {"url": "http://10.0.0.1/"},
            },
        ),
    )
    document = tomllib.loads(text)
    assert document["gate"] == {"budget_ms": 5}
    assert document["cameras"] == [
        {"name": "yard", "url": "a.mp4", "zones": [ZONE], "tasks": []},
        {"name": "new", "url": "http://10.0.0.1/"},
    ]


@pytest.mark.parametrize(
    ("kind", "reason", "change"),
    [
        (SettingsError, "at least 1", {"cameras": {"yard": None, "hall": None}}),
        (SettingsError, "unknown task", {"cameras": {"yard": {"tasks": ["cats"]}}}),
        (SettingsError, "two cameras", {"cameras": {"yard": {"name": "hall"}}}),
        (SettingsError, "budget_ms", {"budget_ms": -1}),
        (SettingsError, "looks_per_s", {"cameras": {"yard": {"looks_per_s": 1e9}}}),
        (NotFoundError, "camera 'x'", {"cameras": {"x": None}}),
        (NotFoundError, "address", {"cameras": {"x": {"whole": True}}}),
        (NotFoundError, "task 'x'", {"tasks": {"x": {"looks": 1}}}),
        (NotFoundError, "model 'x'", {"models": {"x": {"least_score": 1}}}),
        (SettingsError, "expected an address", {"cameras": {"hall": {"url": "/etc/passwd"}}}),
        (SettingsError, "expected an address", {"cameras": {"x": {"url": "file:///etc/x"}}}),
        (SettingsError, "expected an address", {"cameras": {"hall": {"url": "concat:a|b"}}}),
        # The password in yard.password must not go to whoever asks for it,
        (SettingsError, "another place", {"cameras": {"yard": {"url": "rtsp://viewer@evil/"}}}),
        (
            SettingsError,
            "another place",
            {"cameras": {"yard": {"url": "http://viewer@10.0.0.7/"}}},
        ),
        (
            SettingsError,
            "another place",
            {"cameras": {"yard": {"url": "rtsp://viewer@10.0.0.7:5/"}}},
        ),
        # and one in an address is not known to who sees it hidden.
        (SettingsError, "given anew", {"cameras": {"hall": {"url": "rtsp://me:***@evil/"}}}),
    ],
)
def test_what_cannot_be_changes_nothing(
    kind: type[TripartyError], reason: str, change: Any, file: Path
) -> None:
    asked: list[bool] = []
    with pytest.raises(kind, match=reason):
        editor(file, lambda: asked.append(True)).apply(edit(**change))
    assert file.read_text() == CONFIG
    assert asked == []


@pytest.mark.parametrize(
    "change",
    [
        {"results": {"database": "/etc/x"}},
        {"models": {"objects": {"python": "os:system"}}},
        {"models": {"objects": {"file": "x.onnx"}}},
        {"cameras": {"yard": {"password_file": "/etc/shadow"}}},
        {"cameras": {"yard": {"password_env": "HOME"}}},
        {"cameras": {"yard": {"ffmpeg": {"x": "y"}}}},
        {"cameras": {"../x": {"url": "rtsp://a/"}}},
        {"cameras": {"yard": {"zones": [{"name": "a", "polygon": LEFT[:2]}]}}},
        {"tasks": {"people": {"model": "other"}}},
        {"gate": {"artifact": "x"}},
        {"webhooks": []},
    ],
)
def test_only_what_is_named_can_be_asked_for(change: Any) -> None:
    with pytest.raises(ValidationError):
        edit(**change)


def test_an_address_that_was_shown_hidden_stays(file: Path) -> None:
    editor(file).apply(
        edit(cameras={"hall": {"url": "rtsp://me:***@10.0.0.8/", "whole": True}})
    )
    hall = WatchSettings.load(file).cameras[1]
    assert (hall.url, hall.whole) == ("rtsp://me:s3cret@10.0.0.8/", True)
    editor(file).apply(edit(cameras={"yard": {"url": "rtsp://viewer@10.0.0.7/stream2"}}))
    assert WatchSettings.load(file).cameras[0].url.endswith("stream2")


def test_a_file_that_gets_a_password_is_for_its_owner_alone(file: Path) -> None:
    editor(file).apply(edit(cameras={"hall": {"url": "rtsp://me:other@10.0.0.8/"}}))
    assert file.stat().st_mode & 0o777 == 0o600


def test_who_saw_another_file_changes_nothing(file: Path) -> None:
    made = editor(file)
    seen = made.read().digest
    file.write_text(CONFIG + "# meanwhile\n")
    with pytest.raises(ConflictError):
        made.apply(edit(budget_ms=1), seen=seen)
    made.apply(edit(budget_ms=1), seen=made.read().digest)


def test_what_only_a_restart_can_change_is_refused_by_what_runs(file: Path) -> None:
    made = editor(file)
    file.write_text(CONFIG.replace('policy = "ours"', 'policy = "random"'))
    with pytest.raises(SettingsError, match="start again"):
        made.apply(edit(budget_ms=1))


def test_a_link_stays_a_link_and_a_folder_that_is_not_ours_is_told(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = file.parent / "link.toml"
    link.symlink_to(file)
    editor(link).apply(edit(budget_ms=1))
    assert link.is_symlink()
    assert WatchSettings.load(file).gate.budget_ms == 1

    def refused(*_: Any, **__: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("triparty.device.gateway.editing.write_atomic", refused)
    with pytest.raises(StateError, match="must belong"):
        editor(file).apply(edit(budget_ms=2))
