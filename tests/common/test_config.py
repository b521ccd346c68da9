"""Settings: where they come from, which wins, and what a wrong one is told."""

from __future__ import annotations

import os
from pathlib import Path
from typing import ClassVar

import pytest
from pydantic import Field, SecretStr

from triparty.common.config import RoleSettings, settings_config
from triparty.common.errors import SettingsError


class Example(RoleSettings):
    role: ClassVar[str] = "tester"
    model_config = settings_config("TRIPARTY_TESTER_")

    home: Path = Path("default")
    days: int = Field(default=7, ge=1, le=30)
    passphrase: str | None = Field(default=None, repr=False)
    token: SecretStr | None = None
    names: tuple[str, ...] = ()


def toml(folder: Path, text: str) -> Path:
    file = folder / "tester.toml"
    file.write_text(text, encoding="utf-8")
    return file


def test_defaults() -> None:
    settings = Example.load(None)
    assert (settings.home, settings.days, settings.passphrase) == (Path("default"), 7, None)


def test_command_line_before_environment_before_file_before_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = toml(tmp_path, 'home = "file"\ndays = 1\npassphrase = "file"\n')
    monkeypatch.setenv("TRIPARTY_TESTER_HOME", "environment")
    monkeypatch.setenv("TRIPARTY_TESTER_DAYS", "2")
    settings = Example.load(file, home=Path("line"), days=None)
    assert settings.home == Path("line")
    assert settings.days == 2
    assert settings.passphrase == "file"
    assert settings.names == ()
    monkeypatch.undo()
    assert Example.load(file).days == 1


@pytest.mark.parametrize("name", ["TRIPARTY_TESTER_DAYS", "triparty_tester_days"])
def test_a_variable_wins_over_the_file_however_it_is_written(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, "2")
    assert Example.load(toml(tmp_path, "days = 1")).days == 2


@pytest.mark.parametrize(
    ("written", "nearest"), [("day", "days"), ("homes", "home"), ("pasphrase", "passphrase")]
)
def test_an_unknown_name_is_told_the_nearest_known_one(
    written: str, nearest: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = toml(tmp_path, f"{written} = 1\n")
    with pytest.raises(SettingsError) as caught:
        Example.load(file)
    assert caught.value.message == (
        f"unknown key '{written}' in {file}; the nearest known one is {nearest}"
    )
    variable = f"TRIPARTY_TESTER_{written.upper()}"
    monkeypatch.setenv(variable, "1")
    with pytest.raises(SettingsError) as caught:
        Example.load(None)
    assert caught.value.message == (
        f"unknown environment variable {variable}; the nearest known one is "
        f"TRIPARTY_TESTER_{nearest.upper()}"
    )


def test_even_what_is_near_to_nothing_is_told_one(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="nearest known one is"):
        Example.load(toml(tmp_path, "qqq = 1"))
    with pytest.raises(SettingsError, match="unknown key 'tester'"):
        Example.load(toml(tmp_path, "[tester]\ndays = 1\n"))


def test_other_roles_variables_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIPARTY_TESTERS", "1")
    monkeypatch.setenv("TRIPARTY_OTHER_DAYS", "x")
    assert Example.load(None).days == 7


@pytest.mark.parametrize("text", ['days = "many"', "days = 0", "days = 31", "days = [1]"])
def test_a_wrong_value_names_role_key_and_value(text: str, tmp_path: Path) -> None:
    value = text.partition(" = ")[2].strip('"')
    with pytest.raises(SettingsError, match="tester setting 'days': Input should") as caught:
        Example.load(toml(tmp_path, text))
    assert value in caught.value.message


def test_a_wrong_variable_names_its_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIPARTY_TESTER_DAYS", "many")
    with pytest.raises(SettingsError, match=r"tester setting 'days'.*got 'many'"):
        Example.load(None)
    monkeypatch.delenv("TRIPARTY_TESTER_DAYS")
    monkeypatch.setenv("TRIPARTY_TESTER_NAMES", "not json")
    with pytest.raises(SettingsError, match=r"tester settings: .*names"):
        Example.load(None)


@pytest.mark.parametrize("key", ["passphrase", "token"])
def test_a_wrong_secret_is_not_shown(key: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=f"tester setting '{key}'") as caught:
        Example.load(toml(tmp_path, f"{key} = 31415926"))
    error: BaseException | None = caught.value
    while error is not None:
        assert "31415926" not in str(error)
        error = error.__cause__


def test_secrets_are_not_in_repr() -> None:
    settings = Example.load(None, passphrase="hunter2", token=SecretStr("hunter3"))
    assert "hunter" not in repr(settings)


@pytest.mark.parametrize("text", [b"days", b"days = ", b"= 1", b"\xff", b"days = 1\ndays = 2"])
def test_what_is_no_toml_is_refused(text: bytes, tmp_path: Path) -> None:
    file = tmp_path / "tester.toml"
    file.write_bytes(text)
    with pytest.raises(SettingsError, match=r"tester\.toml is not valid TOML"):
        Example.load(file)


def test_a_named_file_must_be_readable(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"cannot read .*absent\.toml: No such file"):
        Example.load(tmp_path / "absent.toml")
    with pytest.raises(SettingsError, match=r"cannot read .*: Is a directory"):
        Example.load(tmp_path)
    if os.geteuid():
        file = toml(tmp_path, "")
        file.chmod(0)
        with pytest.raises(SettingsError, match=r"cannot read .*: Permission denied"):
            Example.load(file)


def test_settings_do_not_change_after_loading() -> None:
    settings = Example.load(None)
    with pytest.raises(ValueError, match="frozen"):
        settings.days = 3
