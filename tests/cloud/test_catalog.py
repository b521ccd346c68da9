"""Which model a device may use, and that the engine reads what was signed."""

from __future__ import annotations

import os
from datetime import timedelta

import pytest

from triparty.cloud import catalog as catalog_module
from triparty.cloud.accounts import SCOPES, Principal
from triparty.cloud.catalog import Catalog
from triparty.common.errors import NotFoundError, UnavailableError

FILES = {"config.json": b"{}", "model.safetensors": b"weights", "sub/extra.json": b"[]"}


def principal(party, role="device"):
    developer = getattr(party, "developer", party)
    return Principal(party.id, role, developer.id, SCOPES[role])


@pytest.fixture
def granted(developer, device):
    assert developer.publish(FILES).status_code == 201
    assert developer.grant(device).status_code == 201
    return device


def again(cloud):
    """The catalog after a restart."""
    state = cloud.app.state
    return Catalog(
        state.database, state.blobs, state.settings.model_folder, clock=lambda: cloud.now
    )


def test_a_granted_model_is_a_folder(cloud, granted):
    model = cloud.app.state.catalog.model_for(principal(granted), "tiny")
    assert (model.name, model.version, model.epoch) == ("tiny", 1, 1)
    assert model.developer == granted.developer.id
    found = {
        str(path.relative_to(model.folder)): path.read_bytes()
        for path in model.folder.rglob("*")
        if path.is_file()
    }
    assert found == FILES
    assert {file.path for file in model.manifest.files} == set(FILES)


def test_a_device_is_served_the_version_of_its_bundle(cloud, granted):
    granted.developer.publish({"config.json": b"{ }"}, version=2, epoch=2)
    model_for = cloud.app.state.catalog.model_for
    assert model_for(principal(granted), "tiny").version == 1
    granted.developer.grant(granted, version=2, epoch=2)
    model = model_for(principal(granted), "tiny")
    assert (model.version, model.epoch) == (2, 2)
    assert (model.folder / "config.json").read_bytes() == b"{ }"


def test_not_for_others(cloud, granted):
    developer = granted.developer
    neighbour, stranger = developer.device("n"), cloud.developer("o").device("s")
    for party, name in ((neighbour, "tiny"), (stranger, "tiny"), (granted, "other")):
        with pytest.raises(NotFoundError):
            cloud.app.state.catalog.model_for(principal(party), name)
    assert cloud.app.state.catalog.model_for(principal(developer, "developer"), "tiny")


def test_a_bundle_without_a_model(cloud, developer, device):
    developer.grant(device)
    with pytest.raises(NotFoundError):
        cloud.app.state.catalog.model_for(principal(device), "tiny")


@pytest.mark.parametrize("kind", ["model", "bundle"])
def test_expired(cloud, developer, device, kind):
    soon = {"expires": cloud.now + timedelta(days=1)}
    developer.publish(FILES, **(soon if kind == "model" else {}))
    developer.grant(device, **(soon if kind == "bundle" else {}))
    assert cloud.app.state.catalog.model_for(principal(device), "tiny")
    cloud.now += timedelta(days=1)
    with pytest.raises(NotFoundError):
        cloud.app.state.catalog.model_for(principal(device), "tiny")


def test_a_changed_folder_is_laid_out_again_after_a_restart(cloud, granted):
    folder = cloud.app.state.catalog.model_for(principal(granted), "tiny").folder
    (folder / "config.json").unlink()
    (folder / "config.json").write_bytes(b"evil")
    (folder / "more.json").write_bytes(b"evil")
    model = again(cloud).model_for(principal(granted), "tiny")
    assert (model.folder / "config.json").read_bytes() == b"{}"
    assert not (model.folder / "more.json").exists()


def test_damaged_blobs_are_never_served(cloud, granted):
    folder = cloud.app.state.catalog.model_for(principal(granted), "tiny").folder
    blob = folder / "config.json"
    assert os.stat(blob).st_nlink == 2  # the blob itself
    blob.chmod(0o600)
    blob.write_bytes(b"ev")
    with pytest.raises(UnavailableError):
        again(cloud).model_for(principal(granted), "tiny")


def test_without_hard_links(cloud, granted, monkeypatch):
    def refuse(*_: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(catalog_module.os, "link", refuse)
    model = cloud.app.state.catalog.model_for(principal(granted), "tiny")
    assert (model.folder / "sub" / "extra.json").read_bytes() == b"[]"
    assert os.stat(model.folder / "config.json").st_nlink == 1
