"""The site for trying things out: its file is one that `watch` takes, whatever it is called."""

from __future__ import annotations

from pathlib import Path

import av
import pytest

from triparty.common import scenes
from triparty.common.errors import SettingsError, StateError
from triparty.device.gateway import example_site
from triparty.device.gateway.example_site import FILMS, write_example_site
from triparty.device.gateway.settings import WatchSettings


def test_films_and_a_file_that_plays_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(example_site, "SECONDS", 2.0)
    detector = tmp_path / 'a "detector".onnx'
    detector.write_bytes(b"read by nobody here")
    target = write_example_site(tmp_path / "site", detector=detector, model="sentences")
    settings = WatchSettings.load(target)
    assert [camera.name for camera in settings.cameras] == list(FILMS)
    assert settings.models[0].file == detector
    assert settings.models[0].labels == scenes.LABELS
    assert settings.ask.model == "sentences"
    assert settings.page is not None
    assert settings.page.is_local
    for camera in settings.cameras:
        with av.open(str(tmp_path / "site" / camera.url)) as film:
            assert sum(1 for _ in film.decode(video=0)) == 20


def test_a_folder_that_is_there_stays_as_it_is(tmp_path: Path) -> None:
    detector = tmp_path / "detector.onnx"
    detector.write_bytes(b"read by nobody here")
    with pytest.raises(StateError, match="name another folder"):
        write_example_site(tmp_path, detector=detector)
    assert not list(tmp_path.glob("*.mp4"))


def test_a_detector_that_is_not_there_is_named_and_nothing_made(tmp_path: Path) -> None:
    with pytest.raises(
        SettingsError, match=r"no detector .*absent\.onnx.*example-detector OUT"
    ):
        write_example_site(tmp_path / "site", detector=tmp_path / "absent.onnx")
    assert not (tmp_path / "site").exists()
