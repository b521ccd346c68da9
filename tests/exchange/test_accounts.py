"""One device, two clouds, two developers: a model is asked at its own cloud, with its key."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from live_cloud import Developer, LiveCloud, running_cloud
from local_endpoint import serving_locally
from typer.testing import CliRunner

from triparty.common.errors import (
    ManifestError,
    NotFoundError,
    SettingsError,
    StateError,
    TokenRevokedError,
)
from triparty.developer.protect import Choices, protect
from triparty.device import Device, cli
from triparty.device.chat.dialogue import Dialogue
from triparty.device.home import HeldModel
from triparty.device.inference.options import GenerationOptions

PROMPT = "Once upon a time"


@dataclass
class Stage:
    """A device enrolled with two clouds, by two developers who both have a `talk`."""

    clouds: list[LiveCloud]
    developers: list[Developer]
    device: Device
    outs: list[Path]
    text: str

    def served(self) -> list[int]:
        """Rows that each cloud has run."""
        return [cloud.app.state.serving.totals().rows for cloud in self.clouds]


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory, stories_model: Path) -> Iterator[Stage]:
    folder = tmp_path_factory.mktemp("accounts")
    source = folder / "source"
    source.mkdir()
    for file in stories_model.iterdir():
        (source / file.name).write_bytes(file.read_bytes())
    (source / "chat_template.jinja").write_text(
        "{% for m in messages %}{{ m.content }} {% endfor %}"
    )
    outs = [folder / f"out{number}" for number in (0, 1)]
    for number, out in enumerate(outs):  # the same model under two keys
        protect(str(source), out, choices=Choices.of(), seed=number)
    with (
        running_cloud(folder / "cloud0", https=True) as first,
        running_cloud(folder / "cloud1", https=True) as second,
    ):
        clouds, developers = [first, second], []
        device = Device(folder / "device")
        for number, cloud in enumerate(clouds):
            developer = Developer.new(cloud, folder / f"developer{number}")
            developer.enroll()
            account = (None, "work")[number]
            device.enroll(developer.invite("phone"), name="phone", account=account)
            for name in ("talk", f"only{number}"):
                developer.publish(outs[number], name)
                developer.grant("phone", name)
            developers.append(developer)
        device.pull()
        text = device.generate("only0", PROMPT, max_tokens=12).text
        yield Stage(clouds, developers, device, outs, text)


def test_all_models_are_listed(stage: Stage) -> None:
    assert stage.device.models() == [
        HeldModel("only0", 1, 1, "main"),
        HeldModel("talk", 1, 1, "main"),
        HeldModel("only1", 1, 1, "work"),
        HeldModel("talk", 1, 1, "work"),
    ]
    home = str(stage.device._home.folder)
    said = CliRunner().invoke(cli.app, ["models", "--home", home]).stdout
    assert said.splitlines() == [
        "only0  version 1, epoch 1",
        "talk  version 1, epoch 1",
        "only1  version 1, epoch 1  (account work)",
        "talk  version 1, epoch 1  (account work)",
    ]


@pytest.mark.parametrize(
    ("name", "cloud"),
    [("only0", 0), ("only1", 1), ("main/talk", 0), ("work/talk", 1), ("work/only1", 1)],
)
def test_a_model_is_asked_at_its_own_cloud(stage: Stage, name: str, cloud: int) -> None:
    before = stage.served()
    assert stage.device.generate(name, PROMPT, max_tokens=12).text == stage.text
    gained = [after > had for had, after in zip(before, stage.served(), strict=True)]
    assert gained == [cloud == 0, cloud == 1]


def test_the_accounts_share_no_key(stage: Stage) -> None:
    home = stage.device._home
    others = home.account("work")
    assert home.access().principal != others.access().principal
    assert home.sealing_key().public != others.sealing_key().public
    assert home.access().developer != others.access().developer


def test_a_name_that_means_several_is_refused(stage: Stage) -> None:
    with pytest.raises(SettingsError, match="ask for main/talk or work/talk"):
        stage.device.generate("talk", PROMPT)
    for wrong, says in (
        ("absent", "it has: only0, main/talk, only1, work/talk"),
        ("work/only0", "no bundle of 'work/only0'"),
        ("play/talk", r"no account 'play' \(it has: main, work\)"),
        ("/talk", "no account ''"),
    ):
        with pytest.raises(StateError, match=says):
            stage.device.generate(wrong, PROMPT)


def test_the_endpoint_names_them_as_they_are_asked_for(stage: Stage) -> None:
    from openai import OpenAI

    with (
        serving_locally(stage.device._home.folder) as url,
        OpenAI(base_url=url, api_key="unused", max_retries=0) as client,
    ):
        names = [model.id for model in client.models.list()]
        assert names == ["only0", "main/talk", "only1", "work/talk"]
        said = client.completions.create(
            model="work/talk", prompt=PROMPT, max_tokens=12, temperature=0
        )
    assert said.choices[0].text == stage.text


def test_a_chat_is_with_one_of_them(stage: Stage) -> None:
    dialogue = Dialogue(stage.device, "work/talk", GenerationOptions(max_tokens=4))
    for turn in ("Hello", "And then?"):
        list(dialogue.ask(turn))
    serving = [cloud.app.state.serving for cloud in stage.clouds]
    assert [one.session_count() for one in serving] == [0, 1]
    dialogue.close()
    assert [one.session_count() for one in serving] == [0, 0]


def enrolled_with_both(stage: Stage, folder: Path, *accounts: str, label: str) -> Device:
    device = Device(folder)
    for developer, account in zip(stage.developers, accounts, strict=True):
        device.enroll(developer.invite(label), name=label, account=account)
    return device


def test_one_account_is_pulled_or_all(stage: Stage, tmp_path: Path) -> None:
    device = enrolled_with_both(stage, tmp_path / "device", "main", "work", label="laptop")
    for number, developer in enumerate(stage.developers):
        for name in ("moving", f"lone{number}"):
            developer.publish(stage.outs[number], name)
            developer.grant("laptop", name)
    assert [model.account for model in device.pull("main/moving").taken] == ["main"]
    pulled = device.pull("moving")
    assert [model.account for model in pulled.taken] == ["work"]
    assert [model.account for model in pulled.kept] == ["main"]
    with pytest.raises(NotFoundError):
        device.pull("absent")
    assert device.pull("lone1").taken == (HeldModel("lone1", 1, 1, "work"),)


def test_an_account_that_fails_holds_no_other_up(stage: Stage, tmp_path: Path) -> None:
    first, second = stage.developers
    device = enrolled_with_both(stage, tmp_path / "device", "home", "work", label="tablet")
    for developer in (first, second):
        developer.grant("tablet", "talk")
    with first.client() as client:
        client.revoke_device(device._home.account("home").access().principal)
    with pytest.raises(TokenRevokedError):
        device.pull()
    assert [model.account for model in device.models()] == ["work"]
    assert device.generate("talk", PROMPT, max_tokens=12).text == stage.text


def test_the_commands(stage: Stage, tmp_path: Path) -> None:
    home, (_, developer) = str(tmp_path / "device"), stage.developers
    words = ["enroll", "--cloud", developer.cloud.url, "--invite", developer.invite("pad")]
    more = ["--account", "work", "--home", home]
    done = CliRunner().invoke(cli.app, [*words, *more, "--json"], catch_exceptions=False)
    assert json.loads(done.stdout)["url"] == developer.cloud.url
    assert (tmp_path / "device" / "accounts" / "work" / "identity.key").is_file()
    done = CliRunner().invoke(cli.app, ["keys", *more, "--json"], catch_exceptions=False)
    assert json.loads(done.stdout) == {"keys": "file"}
    again = ["enroll", "--cloud", developer.cloud.url, "--invite", developer.invite("more")]
    with pytest.raises(StateError, match="name another --account"):
        CliRunner().invoke(cli.app, [*again, *more], catch_exceptions=False)
    for name in ("../out", ".hidden", "a/b"):
        with pytest.raises(ManifestError):
            Device(home).enroll(developer.invite("odd"), account=name)


def test_a_device_without_any_account_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(StateError, match="triparty device enroll"):
        Device(tmp_path / "device").models()
