"""Settings of the cloud, and `cloud init`."""

from __future__ import annotations

import os
import stat
from datetime import UTC, datetime
from pathlib import Path

import pytest

from triparty.cloud.initialise import initialise
from triparty.cloud.settings import CloudSettings, check_url, load_settings
from triparty.common.errors import ConflictError, SettingsError, StateError

NOW = datetime(2026, 1, 2, tzinfo=UTC)


def test_init_makes_a_private_folder(tmp_path):
    data = tmp_path / "cloud"
    made = initialise(data, url="https://cloud.example/", host="0.0.0.0", port=9, now=NOW)
    assert stat.S_IMODE(data.stat().st_mode) == 0o700
    assert stat.S_IMODE((data / "cloud.toml").stat().st_mode) == 0o600
    settings = load_settings(data)
    assert (settings.url, settings.host, settings.port) == (
        "https://cloud.example",
        "0.0.0.0",
        9,
    )
    assert made.url == "https://cloud.example"
    assert made.token not in repr(made)


def test_init_does_not_overwrite(tmp_path):
    initialise(tmp_path / "cloud", self_signed=True, now=NOW)
    before = {p: p.read_bytes() for p in (tmp_path / "cloud").rglob("*") if p.is_file()}
    with pytest.raises(StateError):
        initialise(tmp_path / "cloud", self_signed=True, now=NOW)
    assert before == {p: p.read_bytes() for p in (tmp_path / "cloud").rglob("*") if p.is_file()}


def test_one_operator_a_database(tmp_path):
    shared = f"sqlite:///{tmp_path / 'shared.db'}"
    initialise(tmp_path / "one", database=shared, now=NOW)
    with pytest.raises(ConflictError):
        initialise(tmp_path / "two", database=shared, now=NOW)
    assert not (tmp_path / "two" / "cloud.toml").exists()
    initialise(tmp_path / "two", now=NOW)  # what the failed attempt left does not matter


def test_a_folder_is_the_same_in_any_working_directory(tmp_path, monkeypatch):
    """What a server notes of itself is read by commands that run elsewhere."""
    initialise(tmp_path / "cloud", self_signed=True, now=NOW)
    settings = load_settings(tmp_path / "cloud")
    monkeypatch.chdir(tmp_path)
    beside = load_settings(Path("cloud"))
    assert beside.data == tmp_path / "cloud"
    assert beside.database_url == settings.database_url
    assert beside.certificate_files == settings.certificate_files


def test_strange_but_valid_text_survives_the_file(tmp_path):
    name = "sqlite:///" + str(tmp_path / 'a "quoted" \\ name ü 🙂.db')
    initialise(tmp_path / "cloud", database=name, now=NOW)
    assert load_settings(tmp_path / "cloud").database == name


def test_no_cloud_in_the_folder(tmp_path):
    with pytest.raises(StateError, match="cloud init"):
        load_settings(tmp_path)


def test_unknown_and_wrong_values(tmp_path, monkeypatch):
    data = tmp_path / "cloud"
    initialise(data, now=NOW)
    with pytest.raises(SettingsError):
        load_settings(data, port=70_000)
    with pytest.raises(SettingsError):
        load_settings(data, engine="cuda")
    monkeypatch.setenv("TRIPARTY_CLOUD_MAX_SESIONS", "3")
    with pytest.raises(SettingsError, match="MAX_SESSIONS"):
        load_settings(data)


def test_environment_and_command_line(tmp_path, monkeypatch):
    data = tmp_path / "cloud"
    initialise(data, port=1000, now=NOW)
    monkeypatch.setenv("TRIPARTY_CLOUD_PORT", "2000")
    monkeypatch.setenv("TRIPARTY_CLOUD_OPERATOR_TOKEN", "tpt_secret")
    assert load_settings(data).port == 2000
    assert load_settings(data, port=3000).port == 3000
    assert "tpt_secret" not in repr(load_settings(data))


@pytest.mark.parametrize(
    "url",
    ["cloud", "ftp://x", "https://", "https://a/b", "https://a?x=1", "https://user@a"],
)
def test_urls_of_no_cloud(url):
    with pytest.raises(SettingsError):
        check_url(url)


def test_blob_folders(tmp_path):
    data = tmp_path / "cloud"
    initialise(data, now=NOW)
    assert load_settings(data).blob_folder == data / "blobs"
    assert load_settings(data, blobs="/big").blob_folder == Path("/big")
    assert load_settings(data, blobs="file:///big").blob_folder == Path("/big")
    assert load_settings(data, blobs="s3://bucket").blob_folder is None


def test_a_certificate_needs_its_key(tmp_path):
    data = tmp_path / "cloud"
    initialise(data, now=NOW)
    assert load_settings(data).certificate_files is None
    with pytest.raises(SettingsError):
        _ = load_settings(data, cert=Path("x")).certificate_files
    assert os.environ.get("TRIPARTY_CLOUD_CERT") is None


def test_the_engine_behind_the_cloud_and_its_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRIPARTY_CLOUD_COMPLETIONS_UPSTREAM_KEY", "sk-never-shown")
    settings = CloudSettings.load(
        None, data=tmp_path, completions_upstream="http://127.0.0.1:8000/v1/"
    )
    assert settings.completions_upstream == "http://127.0.0.1:8000"
    assert settings.completions_upstream_key is not None
    assert settings.completions_upstream_key.get_secret_value() == "sk-never-shown"
    assert "sk-never-shown" not in repr(settings)
    for wrong in (
        {"completions_upstream": "http://user:word@engine:8000"},
        {"completions_upstream": "ftp://engine"},
        {"completions_upstream_model": "{name}-{secret}"},
        {"completions_upstream_model": "{name"},
    ):
        with pytest.raises(SettingsError) as refused:
            CloudSettings.load(None, data=tmp_path, **wrong)
        assert "word" not in refused.value.message
