"""The developer's commands on accounts, as a person types them, against a real cloud."""

from __future__ import annotations

import json
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from live_cloud import Developer, LiveCloud
from typer.testing import CliRunner

from triparty.common.documents import parse_time
from triparty.common.errors import (
    SettingsError,
    StateError,
    TokenRevokedError,
    TripartyError,
)
from triparty.common.invites import Invite
from triparty.developer.cli import app
from triparty.developer.home import Home

Run = Callable[..., str]


@pytest.fixture
def run(newcomer: Developer) -> Run:
    """Runs a command in the newcomer's home; returns its stdout, raises its error."""

    def invoke(*words: str | Path) -> str:
        given = [*map(str, words), "--home", str(newcomer.home.folder)]
        result = CliRunner().invoke(app, given)
        if isinstance(result.exception, TripartyError):
            raise result.exception
        assert result.exit_code == 0, result.output
        assert result.stderr == ""
        return result.stdout

    return invoke


def document(output: str) -> dict[str, Any]:
    """The output, if it is one JSON document in one line."""
    assert output.endswith("\n")
    assert output.count("\n") == 1
    parsed: dict[str, Any] = json.loads(output)
    return parsed


@pytest.fixture
def enrolled(run: Run, newcomer: Developer) -> Developer:
    code = newcomer.cloud.invite().to_code()
    run("enroll", "--cloud", newcomer.cloud.url, "--invite", code)
    return newcomer


def test_init_says_where_the_keys_are_and_what_to_do(tmp_path: Path) -> None:
    home = tmp_path / "new"
    said = CliRunner().invoke(app, ["init", "--home", str(home)]).stdout
    assert "ed25519:" in said
    assert "move it offline" in said
    again = CliRunner().invoke(app, ["init", "--home", str(home)])
    assert isinstance(again.exception, StateError)


def test_init_takes_home_and_passphrase_from_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "new"
    monkeypatch.setenv("TRIPARTY_DEVELOPER_HOME", str(home))
    monkeypatch.setenv("TRIPARTY_DEVELOPER_PASSPHRASE", "correct horse")
    result = CliRunner().invoke(app, ["init", "--json"])
    made = document(result.stdout)
    assert made["home"] == str(home)
    assert "horse" not in result.output
    root = Home(home, passphrase="correct horse").root()
    assert root.public.key_id == made["developer"]
    assert stat.S_IMODE((home / "keys" / "root.key").stat().st_mode) == 0o600


def enroll_from(newcomer: Developer, given: bytes) -> Any:
    """`enroll --invite -`, given these bytes on standard input."""
    words = ["enroll", "--cloud", newcomer.cloud.url, "--invite", "-", "--json"]
    return CliRunner().invoke(app, [*words, "--home", str(newcomer.home.folder)], input=given)


def test_enroll_reads_the_code_from_standard_input(newcomer: Developer) -> None:
    result = enroll_from(newcomer, newcomer.cloud.invite().to_code().encode() + b"\n")
    assert document(result.stdout) == {
        "developer": newcomer.home.root().public.key_id,
        "url": newcomer.cloud.url,
    }


@pytest.mark.parametrize("given", [b"", b"\n", b"\xff\xfe\n", b"no code\n"])
def test_standard_input_that_is_no_code_is_refused(given: bytes, newcomer: Developer) -> None:
    result = enroll_from(newcomer, given)
    assert isinstance(result.exception, TripartyError), result.exception


def test_every_command_needs_an_account(run: Run, protected: Path) -> None:
    for words in (("status",), ("invite",), ("revoke", "x"), ("publish", protected)):
        with pytest.raises(StateError, match="developer enroll"):
            run(*words)


def test_the_whole_story_in_json(run: Run, enrolled: Developer, protected: Path) -> None:
    published = document(run("publish", protected, "--json"))
    assert (published["name"], published["version"], published["epoch"]) == ("protected", 1, 1)
    invited = document(run("invite", "--name", "phone", "--json"))
    assert Invite.from_code(invited["invite"]).root == enrolled.home.access().developer
    parse_time(invited["expires"])
    _, phone = enrolled.device("tablet", name="Tab")
    granted = document(run("grant", "tablet", "--json"))["granted"]
    assert granted == [
        {"device": phone, "name": "tablet", "model": "protected", "version": 1, "is_new": True}
    ]
    rotated = document(run("rotate", "protected", "--json"))
    assert (rotated["version"], rotated["epoch"]) == (2, 2)
    assert [item["device"] for item in rotated["granted"]] == [phone]
    revoked = document(run("revoke", "tablet", "--json"))
    assert revoked == {"device": phone, "name": "tablet", "rotate": ["protected"]}


def test_the_whole_story_for_people(run: Run, enrolled: Developer, protected: Path) -> None:
    assert "published assistant version 1, epoch 1" in run(
        "publish", protected, "--name", "assistant"
    )
    said = run("invite", "--name", "phone").splitlines()
    assert Invite.from_code(said[0]).role == "device"
    assert "works once, until" in said[1]
    enrolled.device("tablet", name="Tab")
    assert run("grant", "tablet") == "tablet: granted assistant version 1\n"
    assert run("grant", "tablet") == "tablet: has already assistant version 1\n"
    assert "tablet: new bundle; it must run 'triparty device pull'" in run(
        "rotate", "assistant"
    )
    said = run("revoke", "tablet")
    assert "revoked tablet" in said
    assert "run 'triparty developer rotate assistant'" in said


def test_a_wrong_device_stops_a_grant_before_anything_is_sealed(
    run: Run, enrolled: Developer, protected: Path
) -> None:
    from triparty.common.artifacts import Kind

    run("publish", protected, "--name", "tiny")
    enrolled.device("phone")
    with pytest.raises(StateError, match="no device 'laptop'"):
        run("grant", "phone", "laptop")
    assert enrolled.versions(Kind.BUNDLE) == []


def test_nothing_published_is_nothing_to_grant(run: Run, enrolled: Developer) -> None:
    with pytest.raises(SettingsError, match="developer publish"):
        run("grant", "phone")


def test_revoking_stops_the_token_at_once(run: Run, enrolled: Developer) -> None:
    from triparty.common.errors import NotFoundError

    phone, _ = enrolled.device("phone")
    tablet, _ = enrolled.device("tablet")
    for device in (phone, tablet):
        with pytest.raises(NotFoundError, match="developer grant"):  # its token is good
            device.pull()
    said = run("revoke", "phone")
    assert "rotate" not in said  # it had no bundle
    with pytest.raises(TokenRevokedError):
        phone.pull()
    with pytest.raises(NotFoundError):
        tablet.pull()


def test_status_renews_the_statement(run: Run, enrolled: Developer, protected: Path) -> None:
    run("publish", protected, "--name", "tiny")
    _, phone = enrolled.device("phone", name="Ada's")
    run("grant", "phone")
    before = enrolled.latest()
    found = document(run("status", "--json"))
    after = enrolled.latest()
    assert after.sequence == before.sequence + 1
    assert after.versions == before.versions
    assert after.versions["model/tiny"] == 1
    assert parse_time(found["latest_expires"]) == after.expires
    assert found["url"] == enrolled.cloud.url
    (model,) = found["models"]
    assert model == {
        "name": "tiny",
        "out": str(protected),
        "version": 1,
        "epoch": 1,
        "devices": [phone],
        "sharing": "all",
        "instances": [],
        "highest": 1,
    }
    (device,) = found["devices"]
    assert (device["id"], device["invited_as"], device["name"], device["revoked"]) == (
        phone,
        "phone",
        "Ada's",
        False,
    )
    said = run("status")
    assert "model  tiny  version 1, epoch 1, 1 devices" in said
    assert f"device phone (Ada's)  enrolled {device['created']}  {phone}" in said
    assert enrolled.latest().sequence == after.sequence + 1


def test_no_command_shows_a_secret(
    run: Run, enrolled: Developer, protected: Path, live_cloud: LiveCloud
) -> None:
    said = run("publish", protected) + run("status") + run("status", "--json")
    said += run("invite") + run("invite", "--json")
    assert enrolled.home.access().token not in said
    assert (protected / "secrets" / "master.key").read_bytes().hex() not in said
    assert live_cloud.operator not in said


def test_settings_come_from_a_file(run: Run, tmp_path: Path) -> None:
    settings = tmp_path / "developer.toml"
    settings.write_text("latest_day = 3\n", encoding="utf-8")
    with pytest.raises(SettingsError, match="nearest known one is latest_days"):
        run("status", "--config", settings)
