"""The configuration: what is wrong is named with its remedy, and no secret is shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from triparty.common.errors import SettingsError
from triparty.device.gateway.settings import CameraDefaults, CameraSettings, WatchSettings
from triparty.device.gateway.watching import make_gateway

GOOD = """
[defaults]
stall_s = 3
[gate]
budget_ms = 10
[[models]]
name = "m"
python = "json:dumps"
labels = ["cat", "dog"]
[[tasks]]
name = "cats"
model = "m"
classes = ["cat"]
[[cameras]]
name = "yard"
url = "rtsp://viewer@10.0.0.7/live"
password_file = "yard.password"
[[cameras]]
name = "door"
url = "door.mp4"
stall_s = 7
tasks = []
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "watch.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_cameras_have_the_defaults_unless_they_say_otherwise(tmp_path: Path) -> None:
    settings = WatchSettings.load(written(tmp_path, GOOD))
    assert [camera.stall_s for camera in settings.cameras] == [3, 7]
    assert [camera.retry_s for camera in settings.cameras] == [1, 1]


def test_every_default_can_be_set_for_a_camera() -> None:
    assert set(CameraDefaults.model_fields) < set(CameraSettings.model_fields)


def test_the_command_line_wins(tmp_path: Path) -> None:
    settings = WatchSettings.load(written(tmp_path, GOOD), budget_ms=3.5, policy=None)
    assert settings.gate.budget_ms == 3.5


def test_a_password_comes_from_its_file_and_is_not_shown(tmp_path: Path) -> None:
    (tmp_path / "yard.password").write_text("p@ss/wörd 1\n", encoding="utf-8")
    settings = WatchSettings.load(written(tmp_path, GOOD))
    address = settings.cameras[0].address(settings.folder)
    assert address.url == "rtsp://viewer:p%40ss%2Fw%C3%B6rd%201@10.0.0.7/live"
    assert str(address) == "rtsp://viewer:***@10.0.0.7/live"
    assert "rd%201" not in repr(settings) + repr(address)


def test_a_password_comes_from_a_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = GOOD.replace('password_file = "yard.password"', 'password_env = "YARD"')
    settings = WatchSettings.load(written(tmp_path, text))
    with pytest.raises(SettingsError, match="YARD is not set"):
        settings.cameras[0].address(tmp_path)
    monkeypatch.setenv("YARD", "secret-1")
    assert ":secret-1@" in settings.cameras[0].address(tmp_path).url


def test_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    settings = WatchSettings.load(written(tmp_path, GOOD))
    assert settings.cameras[1].address(settings.folder).url == f"file:{tmp_path}/door.mp4"


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("stall_s = 3", "stal_s = 3", "'stal_s' in [defaults]"),
        ("stall_s = 3", "stal_s = 3", "nearest known one is stall_s"),
        ("stall_s = 7", "lop = true", "[[cameras]] 2"),
        ("[gate]", "[gates]", "nearest known one is gate"),
        ("[gate]", "folder = 'x'\n[gate]", "unknown key 'folder'"),
        ("budget_ms = 10", "budget_ms = -1", "greater than 0"),
        ("budget_ms = 10", "budget_ms = 'x'", "got 'x'"),
        ('name = "door"', 'name = "yard"', "two cameras are called 'yard'"),
        ('model = "m"', 'model = "n"', "unknown model 'n'; the nearest is 'm'"),
        ("tasks = []", "tasks = ['cat']", "unknown task 'cat'; the nearest is 'cats'"),
        ('name = "door"', 'name = "../door"', "cameras.1.name"),
        ("[[cameras]]", "[[cameras]", "not valid TOML"),
        ('python = "json:dumps"', "", "one of file, python and pulled"),
        ('url = "door.mp4"', "", "url"),
        ("[defaults]", "tasks = 3\n[defaults]", "not valid TOML"),
        ("[[tasks]]", "[tasks]", "'tasks' must be tables [[tasks]]"),
    ],
)
def test_what_is_wrong_is_named(old: str, new: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as refused:
        WatchSettings.load(written(tmp_path, GOOD.replace(old, new)))
    assert said in refused.value.message
    assert "watch.toml" in refused.value.message


@pytest.mark.parametrize(
    "camera",
    [
        'url = "rtsp://u:hunter22@c/x"\nname = 7',
        'url = ["rtsp://u:hunter22@c/x"]\nname = "a"',
        'url = "rtsp://u:hunter22@c/x"\nname = "a"\nstall_s = "rtsp://u:hunter22@c/x"',
    ],
)
def test_no_error_shows_a_password(camera: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as refused:
        WatchSettings.load(written(tmp_path, f"[[cameras]]\n{camera}\n"))
    assert "hunter22" not in refused.value.message
    assert refused.value.__cause__ is None


def test_a_password_of_its_own_needs_a_user_and_no_other(tmp_path: Path) -> None:
    (tmp_path / "yard.password").write_text("x", encoding="utf-8")
    for url in ("rtsp://10.0.0.7/live", "rtsp://viewer:hunter22@10.0.0.7/live", "a.mp4"):
        text = GOOD.replace("rtsp://viewer@10.0.0.7/live", url)
        settings = WatchSettings.load(written(tmp_path, text))
        with pytest.raises(SettingsError, match="SCHEME://USER@HOST") as refused:
            settings.cameras[0].address(tmp_path)
        assert "hunter22" not in refused.value.message


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("budget_ms = 10", 'policy = "oracle"', "expected one of keyframes"),
        ("budget_ms = 10", 'policy = "mine"', "expected one of keyframes"),
        ("budget_ms = 10", 'policy = "paper"', "policy 'paper'.*artifact of"),
        ('classes = ["cat"]', 'classes = ["cow"]', "no class 'cow'; it has cat, dog"),
        ('python = "json:dumps"', 'python = "json:nothing"', "nothing"),
        ('python = "json:dumps"', 'python = "no_such_module:f"', "no_such_module"),
        ('python = "json:dumps"', 'python = "json:__doc__"', "no function"),
        ('python = "json:dumps"', 'file = "absent.onnx"', "absent.onnx"),
    ],
)
def test_what_is_not_there_is_named_before_a_thread_starts(
    old: str, new: str, said: str, tmp_path: Path
) -> None:
    import threading

    (tmp_path / "yard.password").write_text("x", encoding="utf-8")
    before = threading.active_count()
    with pytest.raises(SettingsError, match=said):
        make_gateway(WatchSettings.load(written(tmp_path, GOOD.replace(old, new))))
    assert threading.active_count() == before
