"""A cloud with a new certificate: refused by all until somebody confirms the fingerprint."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from live_cloud import Developer, LiveCloud, running_cloud, utc_now
from tls_server import tls_server
from typer.testing import CliRunner

from triparty.cloud.cli import app as cloud_app
from triparty.cloud.initialise import initialise, renew_certificate
from triparty.common.errors import (
    CertificateError,
    ExpiredError,
    SettingsError,
    StateError,
    TripartyError,
)
from triparty.common.tls import certificate_pin
from triparty.developer.account import Developer as Account
from triparty.device import cli
from triparty.device.client import Device


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveCloud]:
    with running_cloud(tmp_path_factory.mktemp("cloud") / "data", https=True) as cloud:
        yield cloud


@pytest.fixture
def developer(cloud: LiveCloud, tmp_path: Path) -> Developer:
    made = Developer.new(cloud, tmp_path)
    made.enroll()
    return made


def access_file(device: Device) -> dict[str, bytes]:
    folder = device._home.folder
    return {name: (folder / name).read_bytes() for name in ("cloud.json", "cloud.pem")}


def test_everybody_refuses_it_until_the_pin_is_given(
    cloud: LiveCloud, developer: Developer
) -> None:
    device, principal = developer.device("phone")
    before = access_file(device)
    pin = cloud.renew_certificate()
    assert pin == certificate_pin(cloud.certificate_pem or "")
    with pytest.raises(CertificateError, match="trust --pin"):
        device.rotate_token()
    for wrong in ("0" * 64, certificate_pin(before["cloud.pem"].decode())):
        with pytest.raises(CertificateError, match="not the one that was told"):
            device.trust(wrong)
    for no_pin in ("", "x" * 64, pin[:-1]):
        with pytest.raises(SettingsError, match="64 hex digits"):
            device.trust(no_pin)
    assert access_file(device) == before
    spelt = ":".join(pin[at : at + 2] for at in range(0, 64, 2)).upper()
    device.trust(spelt)
    assert device.rotate_token()
    assert device._home.access().principal == principal
    account = Account(developer.home.folder)
    with pytest.raises(CertificateError):
        account.home.access().client().__enter__().devices()
    account.trust(pin)
    with account.home.access().client() as client:
        assert [record.id for record in client.devices()] == [principal]


def test_a_stranger_with_a_confirmed_fingerprint_is_not_the_cloud(
    cloud: LiveCloud, developer: Developer, tmp_path: Path
) -> None:
    """Somebody was told a wrong fingerprint: who shows it must still be this home's cloud."""
    device, _ = developer.device("phone")
    record = device._home.folder / "cloud.json"
    with tls_server(tmp_path / "stranger") as stranger:
        document = json.loads(record.read_text()) | {"url": stranger.url}
        record.write_text(json.dumps(document))
        before = access_file(device)
        with pytest.raises(TripartyError) as caught:
            device.trust(certificate_pin(stranger.certificate_pem))
        assert stranger.asked == ["GET /v1/latest"]
        assert not isinstance(caught.value, CertificateError)
    assert access_file(device) == before


def test_an_expired_delegation_leaves_the_old_certificate(
    cloud: LiveCloud, developer: Developer, monkeypatch: pytest.MonkeyPatch
) -> None:
    device, _ = developer.device("phone")
    before = access_file(device)
    pin = certificate_pin(cloud.certificate_pem or "")
    from triparty.device import client as module

    class Late:
        @staticmethod
        def now(zone: object) -> object:
            return utc_now() + timedelta(days=9999)

    monkeypatch.setattr(module, "datetime", Late)
    with pytest.raises(ExpiredError, match="ahead of the cloud's"):
        device.trust(pin)
    assert access_file(device) == before


def test_the_commands(cloud: LiveCloud, developer: Developer, tmp_path: Path) -> None:
    device, _ = developer.device("phone")
    home = str(device._home.folder)
    pin = cloud.renew_certificate()
    done = CliRunner().invoke(cli.app, ["trust", "--pin", pin, "--home", home, "--json"])
    assert json.loads(done.stdout) == {"pin": pin}
    made = initialise(tmp_path / "data", self_signed=True, now=utc_now())
    words = ["renew-certificate", "--data", str(tmp_path / "data"), "--json"]
    renewed = json.loads(CliRunner().invoke(cloud_app, words).stdout)["pin"]
    assert renewed != made.pin
    assert renewed == certificate_pin((tmp_path / "data" / "tls" / "cert.pem").read_text())
    assert (tmp_path / "data" / "tls" / "key.pem").stat().st_mode & 0o777 == 0o600
    assert not (tmp_path / "data" / ".tls.new").exists()


def test_a_cloud_without_its_own_certificate_has_none_to_renew(tmp_path: Path) -> None:
    initialise(tmp_path / "data", now=utc_now())
    with pytest.raises(StateError, match="without --self-signed"):
        renew_certificate(tmp_path / "data", now=utc_now())
