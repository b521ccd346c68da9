"""A new key epoch against a real cloud on loopback."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from live_cloud import Developer, cut

from triparty.common.artifacts import Kind
from triparty.common.deviceinfo import DeviceInfo
from triparty.common.errors import StateError
from triparty.common.transport import CloudClient
from triparty.developer import rotate as rotate_module
from triparty.developer.home import Home
from triparty.developer.publish import Publication
from triparty.developer.rotate import rotate


def rotated(developer: Developer, source: str | None = None) -> Publication:
    return rotate(
        developer.home, "tiny", source=source, settings=developer.settings, now=developer.now()
    )


@pytest.fixture
def publisher(developer: Developer, protected: Path) -> Developer:
    """A developer with two versions of one model."""
    developer.publish(protected)
    developer.publish(protected)
    return developer


def key_of(out: Path) -> bytes:
    return (out / "secrets" / "master.key").read_bytes()


def test_rotation_raises_epoch_and_version_and_revokes_all_before(
    publisher: Developer, protected: Path
) -> None:
    done = rotated(publisher)
    assert (done.model.version, done.model.epoch) == (3, 2)
    out = Path(done.model.out)
    assert out == protected.with_name("tiny.epoch2")
    assert key_of(out) != key_of(protected)
    latest = publisher.latest()
    assert latest.versions["model/tiny"] == 3
    assert set(latest.revoked) == {
        f"{kind}/tiny@{version}" for kind in ("model", "bundle") for version in (1, 2)
    }
    again = rotated(publisher)
    assert (again.model.version, again.model.epoch) == (4, 3)
    assert Path(again.model.out).name == "tiny.epoch3"
    assert "model/tiny@3" in publisher.latest().revoked
    assert "model/tiny@4" not in publisher.latest().revoked


def test_a_revoked_device_gets_no_bundle_of_the_new_epoch(publisher: Developer) -> None:
    phone, phone_id = publisher.device("phone")
    _, lost = publisher.device("lost")
    publisher.grant("phone")
    publisher.grant("lost")
    phone.pull()
    with publisher.client() as client:
        client.revoke_device(lost)
    done = rotated(publisher)
    assert [granted.device for granted in done.granted] == [phone_id]
    newest = [m for m in publisher.manifests(Kind.BUNDLE) if m.version == 3]
    assert [(m.recipient, m.epoch) for m in newest] == [(phone_id, 2)]
    assert [(model.version, model.epoch) for model in phone.pull().taken] == [(3, 2)]


@pytest.mark.parametrize(
    ("owner", "method", "after"),
    [
        pytest.param(CloudClient, "upload_blob", False, id="after the compiler"),
        pytest.param(CloudClient, "publish_artifact", False, id="between blobs and manifest"),
        pytest.param(CloudClient, "publish_artifact", True, id="the manifest's answer lost"),
        pytest.param(CloudClient, "put_statements", False, id="between manifest and latest"),
        pytest.param(CloudClient, "put_statements", True, id="the statement's answer lost"),
        pytest.param(Home, "keep_latest_state", False, id="between latest and record"),
        pytest.param(Home, "keep_model", False, id="before the model's record"),
        pytest.param(CloudClient, "devices", False, id="before the bundles"),
    ],
)
def test_rotating_again_after_a_cut_leaves_no_earlier_version_in_use(
    owner: type, method: str, after: bool, publisher: Developer
) -> None:
    phone, phone_id = publisher.device("phone")
    publisher.grant("phone")
    with cut(owner, method, after=after):
        rotated(publisher)
    done = rotated(publisher)
    assert done.model.epoch == 2
    latest = publisher.latest()
    assert latest.versions["model/tiny"] == done.model.version
    assert set(latest.revoked) == {
        f"{kind}/tiny@{version}"
        for kind in ("model", "bundle")
        for version in range(1, done.model.version)
    }
    assert [granted.device for granted in done.granted] == [phone_id]
    (taken,) = phone.pull().taken
    assert (taken.version, taken.epoch) == (done.model.version, done.model.epoch)


def test_a_folder_of_another_epoch_is_not_taken_for_the_new_one(
    publisher: Developer, protected: Path
) -> None:
    import shutil

    shutil.copytree(protected, protected.with_name("tiny.epoch2"))
    with pytest.raises(StateError, match=r"tiny\.epoch2 is of epoch 1.*move it away"):
        rotated(publisher)
    assert publisher.versions() == [2, 1]


def test_what_was_never_published_cannot_be_rotated(developer: Developer) -> None:
    with pytest.raises(StateError, match="'tiny' is not published from this home"):
        rotated(developer)


def test_a_missing_original_must_be_named(publisher: Developer, protected: Path) -> None:
    key_file = protected / "secrets" / "key.json"
    described = json.loads(key_file.read_bytes())
    original = described["source"]

    def describe(**changes: object) -> None:
        key_file.write_text(json.dumps({**described, **changes}), encoding="utf-8")

    for gone in ("/nowhere/at/all", ""):
        describe(source=gone)
        with pytest.raises(StateError, match=r"is gone: name it with --source"):
            rotated(publisher)
    asked: list[str] = []

    def compile_model(source: str, *_: object, **__: object) -> None:
        asked.append(source)
        raise KeyboardInterrupt

    describe(source="an-owner/a-model")  # a hub id is no folder, and not gone
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rotate_module, "protect", compile_model)
        with pytest.raises(KeyboardInterrupt):
            rotated(publisher)
    assert asked == ["an-owner/a-model"]
    describe(source="/nowhere/at/all")
    done = rotated(publisher, source=original)
    assert (
        DeviceInfo.from_json(
            (Path(done.model.out) / "device" / "device.json").read_bytes()
        ).epoch
        == 2
    )


@pytest.mark.parametrize("damage", [b"", b"{}", b"[]", b'{"scheme": 1}', b"\xff"])
def test_a_damaged_key_description_is_named(
    damage: bytes, publisher: Developer, protected: Path
) -> None:
    (protected / "secrets" / "key.json").write_bytes(damage)
    with pytest.raises(StateError, match=r"key\.json is damaged"):
        rotated(publisher, source="somewhere")
    (protected / "secrets" / "key.json").unlink()
    with pytest.raises(StateError, match=r"key\.json is gone: restore it"):
        rotated(publisher)


def test_two_names_of_one_folder_rotate_to_two_keys(
    publisher: Developer, protected: Path
) -> None:
    publisher.publish(protected, "other")
    first = rotated(publisher)
    second = rotate(
        publisher.home, "other", source=None, settings=publisher.settings, now=publisher.now()
    )
    assert key_of(Path(first.model.out)) != key_of(Path(second.model.out))


def test_a_source_that_is_another_model_is_not_published(
    publisher: Developer, make_model: Callable[[str], Path]
) -> None:
    other = make_model("gpt2")
    with pytest.raises(StateError, match=r"a gpt2 model.*publish it under another name"):
        rotate(
            publisher.home,
            "tiny",
            source=str(other),
            settings=publisher.settings,
            now=publisher.now(),
        )
    assert publisher.versions() == [2, 1]
