"""Publishing to a real cloud on loopback, also after a cut at any step."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from live_cloud import Developer, cut

from triparty.common.artifacts import Kind
from triparty.common.deviceinfo import DeviceInfo
from triparty.common.errors import (
    FileTypeError,
    ManifestError,
    PathError,
    RollbackError,
    StateError,
    UnsupportedModelError,
)
from triparty.common.transport import CloudClient
from triparty.developer.home import Home

CUTS = [
    pytest.param(CloudClient, "upload_blob", False, id="before the blobs"),
    pytest.param(CloudClient, "upload_blob", True, id="between the blobs"),
    pytest.param(CloudClient, "publish_artifact", False, id="between blobs and manifest"),
    pytest.param(CloudClient, "publish_artifact", True, id="the manifest's answer lost"),
    pytest.param(CloudClient, "put_statements", False, id="between manifest and latest"),
    pytest.param(CloudClient, "put_statements", True, id="the statement's answer lost"),
    pytest.param(Home, "keep_latest_state", False, id="between latest and record"),
    pytest.param(Home, "keep_model", False, id="before the model's record"),
    pytest.param(Home, "keep_model", True, id="after the model's record"),
]


def set_epoch(out: Path, epoch: int) -> None:
    path = out / "device" / "device.json"
    document = json.loads(path.read_bytes())
    path.write_text(json.dumps({**document, "epoch": epoch}), encoding="utf-8")
    assert DeviceInfo.from_json(path.read_bytes()).epoch == epoch


def test_versions_rise_from_one(developer: Developer, protected: Path) -> None:
    first = developer.publish(protected)
    assert (first.model.version, first.model.epoch, first.granted) == (1, 1, ())
    assert first.size_bytes == sum(p.stat().st_size for p in (protected / "model").iterdir())
    assert developer.latest().versions["model/tiny"] == 1
    second = developer.publish(protected)
    assert second.model.version == 2
    assert developer.versions() == [2, 1]
    assert developer.latest().versions["model/tiny"] == 2
    assert developer.latest().revoked == ()
    assert developer.home.models() == [second.model]


def test_only_the_model_folder_leaves_the_machine(
    developer: Developer, protected: Path
) -> None:
    developer.publish(protected)
    (manifest,) = developer.manifests(Kind.MODEL)
    sent = {file.path for file in manifest.files}
    assert sent == {path.name for path in (protected / "model").iterdir()}
    blobs = developer.cloud.app.state.settings.blob_folder
    stored = b"".join(path.read_bytes() for path in blobs.rglob("*") if path.is_file())
    assert (protected / "model" / "config.json").read_bytes() in stored  # the scan finds
    assert (protected / "secrets" / "master.key").read_bytes() not in stored
    assert (protected / "device" / "head.safetensors").read_bytes() not in stored


@pytest.mark.parametrize(("owner", "method", "after"), CUTS)
def test_publishing_again_after_a_cut_succeeds(
    owner: type, method: str, after: bool, developer: Developer, protected: Path
) -> None:
    with cut(owner, method, after=after):
        developer.publish(protected)
    again = developer.publish(protected)
    versions = developer.versions()
    assert again.model.version == versions[0]
    assert versions == sorted(set(versions), reverse=True)
    latest = developer.latest()
    assert latest.versions["model/tiny"] == again.model.version
    assert latest.sequence == developer.home.latest_state().sequence
    assert developer.home.model("tiny") == again.model
    once_more = developer.publish(protected)
    assert once_more.model.version == again.model.version + 1


def test_a_home_restored_from_an_older_backup_goes_on(
    developer: Developer, protected: Path
) -> None:
    backup = {
        path: path.read_bytes() for path in developer.home.folder.rglob("*") if path.is_file()
    }
    developer.publish(protected)
    developer.publish(protected)
    (developer.home.folder / "models" / "tiny.json").unlink()
    for path, data in backup.items():
        path.write_bytes(data)
    assert developer.publish(protected).model.version == 3
    assert developer.latest().versions["model/tiny"] == 3


def test_what_an_artifact_never_holds_is_refused(developer: Developer, protected: Path) -> None:
    pickle = protected / "model" / "pytorch_model.bin"
    pickle.write_bytes(b"\x80\x04.")
    with pytest.raises(FileTypeError, match=r"pytorch_model\.bin.*convert it to safetensors"):
        developer.publish(protected)
    pickle.unlink()
    code = protected / "model" / "modeling.py"
    code.write_text("print()", encoding="utf-8")
    with pytest.raises(FileTypeError, match=r"modeling\.py.*remove or convert it"):
        developer.publish(protected)
    code.unlink()
    link = protected / "model" / "more.json"
    link.symlink_to(protected / "secrets" / "key.json")
    with pytest.raises(PathError, match="symbolic link"):
        developer.publish(protected)
    link.unlink()
    assert developer.versions() == []
    assert developer.publish(protected).model.version == 1


@pytest.mark.parametrize("name", ["", "Tiny", "a b", "../x", "-x", "a/b", "x" * 65, "ä", "a\n"])
def test_names_are_short_and_plain(name: str, developer: Developer, protected: Path) -> None:
    with pytest.raises(ManifestError, match="expected 1 to 64"):
        developer.publish(protected, name)
    assert developer.home.models() == []


@pytest.mark.parametrize("missing", ["model", "device/device.json", "."])
def test_only_a_protected_folder_is_published(
    missing: str, developer: Developer, protected: Path
) -> None:
    (protected / missing).rename(protected.parent / "elsewhere")
    with pytest.raises(StateError, match=r"no protected model.*developer protect SRC"):
        developer.publish(protected)


def test_what_no_cloud_serves_is_refused_before_anything_is_uploaded(
    developer: Developer, protected: Path
) -> None:
    file = protected / "device" / "device.json"
    info = DeviceInfo.from_json(file.read_bytes())
    words = replace(info, family="t5", task="seq2seq-lm", interface="tokens", replies=())
    file.write_bytes(words.to_json())
    with pytest.raises(UnsupportedModelError, match=r"'tokens'.*--interface embeddings"):
        developer.publish(protected)
    assert developer.versions() == []
    file.write_bytes(info.to_json())
    assert developer.publish(protected).model.version == 1


def test_the_epoch_never_goes_back(developer: Developer, protected: Path) -> None:
    set_epoch(protected, 2)
    developer.publish(protected)
    set_epoch(protected, 1)
    with pytest.raises(RollbackError, match=r"epoch 1.*epoch 2.*rotate"):
        developer.publish(protected)
    assert developer.versions() == [1]
    set_epoch(protected, 3)
    assert developer.publish(protected).model.epoch == 3


def test_two_names_do_not_disturb_each_other(developer: Developer, protected: Path) -> None:
    developer.publish(protected, "one")
    developer.publish(protected, "two")
    developer.publish(protected, "two")
    current = developer.latest().versions
    assert (current["model/one"], current["model/two"]) == (1, 2)
    assert [model.name for model in developer.home.models()] == ["one", "two"]
