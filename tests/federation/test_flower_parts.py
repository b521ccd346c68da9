"""What is private of Flower, held against the version that is installed."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("flwr", reason="needs the extra federation")

from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from made_sites import NOW, TASK, new_federation

from triparty.common.errors import FederationError, ManifestError
from triparty.common.federation import TRUST_ID, Call, Task
from triparty.developer.federation.federation import Federation
from triparty.developer.federation.flower import build_app, prepare_superlink, sign_app
from triparty.developer.federation.plan import Plan
from triparty.developer.federation.superlink import CLIENT_APP, SERVER_APP
from triparty.device.federation.supernode import Site


@pytest.fixture
def federation(tmp_path: Path) -> Federation:
    return new_federation(tmp_path, Plan(TASK))


@pytest.fixture(scope="module")
def app() -> bytes:
    return build_app(SERVER_APP, CLIENT_APP)


def named_nodes(database: Path) -> Iterator[str]:
    with sqlite3.connect(database) as connection:
        query = "SELECT name FROM node WHERE status != 'unregistered' ORDER BY name"
        return iter([row[0] for row in connection.execute(query)])


def test_a_supernode_takes_what_the_developer_signed_and_nothing_else(
    federation: Federation, app: bytes
) -> None:
    from flwr.supercore.fab import Fab
    from flwr.supernode.start_client_internal import _verify_fab

    signed = sign_app(app, federation.signer(), signed_at=int(NOW.timestamp()))
    trusted = {TRUST_ID: federation.call().signer}
    assert _verify_fab(Fab("", app, signed), trusted)
    assert not _verify_fab(Fab("", app + b"more", signed), trusted)
    other = {TRUST_ID: "ssh-ed25519 " + federation.call().signer.split()[1]}
    assert _verify_fab(Fab("", app, signed), other)
    assert not _verify_fab(Fab("", app, {"valid_license": "Valid"}), trusted)


def test_the_app_holds_no_code_and_names_ours(app: bytes) -> None:
    import io
    import zipfile

    from flwr.common.config import get_fab_config, validate_config

    names = zipfile.ZipFile(io.BytesIO(app)).namelist()
    assert {name for name in names if not name.startswith(".")} == {"pyproject.toml"}
    is_valid, errors, _ = validate_config(get_fab_config(app))
    assert is_valid, errors


def test_who_is_not_registered_any_more_is_gone(
    federation: Federation, tmp_path: Path, app: bytes
) -> None:
    database = federation.path("superlink.db")
    for name in ("a", "b"):
        federation.register(name, Site(tmp_path / name).public_key())
    signed = sign_app(app, federation.signer(), signed_at=1)
    prepare_superlink(database, app=app, verifications=signed, sites=federation.sites())
    assert list(named_nodes(database)) == ["a", "b"]
    federation.forget("a")
    prepare_superlink(database, app=app, verifications=signed, sites=federation.sites())
    assert list(named_nodes(database)) == ["b"]


def test_keys_and_names_are_taken_once(federation: Federation, tmp_path: Path) -> None:
    first, second = (Site(tmp_path / name).public_key() for name in "ab")
    federation.register("a", first)
    federation.register("a", first)
    with pytest.raises(FederationError, match="another site is called"):
        federation.register("a", second)
    with pytest.raises(FederationError, match="under another name"):
        federation.register("b", first)
    with pytest.raises(ManifestError):
        federation.register("../b", second)
    weak = generate_private_key(SECP256R1()).public_key()
    with pytest.raises(FederationError, match="nistp384"):
        federation.register("c", weak.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH))
    assert list(federation.sites()) == ["a"]


def test_secrets_are_for_their_owner_alone(federation: Federation, tmp_path: Path) -> None:
    site = Site(tmp_path / "site")
    assert site.public_key() == site.public_key()
    for path in (
        federation.path("signer.key"),
        federation.path("server.key"),
        site.folder / "node.key",
    ):
        assert path.stat().st_mode & 0o777 == 0o600
    sent = federation.path("call.json").read_text()
    assert "PRIVATE" not in sent


def test_a_call_is_read_as_it_was_written(federation: Federation) -> None:
    call = federation.call()
    assert Call.from_bytes(call.to_bytes()) == call
    for wrong in (
        Call("../up", call.superlink, call.certificate, call.signer),
        Call(call.name, "nowhere", call.certificate, call.signer),
        Call(call.name, call.superlink, "no certificate", call.signer),
        Call(call.name, call.superlink, call.certificate, "ssh-rsa AAAA"),
    ):
        with pytest.raises((FederationError, ManifestError)):
            Call.from_bytes(wrong.to_bytes())


def test_a_task_is_checked_before_a_site_does_it() -> None:
    config = Task("links", fixed={"scale": (1.0, 2.0)}).config()
    assert Task.of_config(config) == Task("links", fixed={"scale": (1.0, 2.0)})
    for name, value in (
        ("epochs", 0),
        ("epochs", 10**9),
        ("epochs", True),
        ("rate", float("nan")),
        ("rate", "fast"),
        ("batch", -1),
        ("optimizer", "eval"),
        ("seed", -1),
        ("fixed/scale", [float("inf")]),
        ("fixed/scale", "none"),
    ):
        with pytest.raises(FederationError):
            Task.of_config({**config, name: value})
