"""Granting and revoking against a real cloud on loopback, honest and hostile."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from live_cloud import Developer, cut

from triparty.common.artifacts import Kind
from triparty.common.errors import (
    RevokedError,
    SealError,
    SettingsError,
    StateError,
    TokenRevokedError,
)
from triparty.common.invites import confirmation
from triparty.common.sealing import SealingKey
from triparty.common.signing import PrivateKey, to_base64url
from triparty.common.transport import CloudClient
from triparty.developer import grant as grant_module
from triparty.developer.grant import models_to_grant
from triparty.developer.home import Home
from triparty.device.home import Home as DeviceHome


@pytest.fixture
def publisher(developer: Developer, protected: Path) -> Developer:
    """A developer with one published model."""
    developer.publish(protected)
    return developer


@pytest.fixture
def sealed(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """To whom bundles were sealed."""
    calls: list[Any] = []
    real = grant_module.seal_folder

    def spy(*args: Any, **kwargs: Any) -> None:
        calls.append(kwargs["device"])
        real(*args, **kwargs)

    monkeypatch.setattr(grant_module, "seal_folder", spy)
    return calls


def test_a_granted_device_can_open_its_bundle(publisher: Developer) -> None:
    phone, phone_id = publisher.device("phone")
    done = publisher.grant("phone")
    assert (done.device, done.version, done.is_new) == (phone_id, 1, True)
    assert [model.name for model in phone.pull().taken] == ["tiny"]
    (manifest,) = publisher.manifests(Kind.BUNDLE)
    assert (manifest.recipient, manifest.version, manifest.epoch) == (phone_id, 1, 1)
    assert publisher.home.existing_model("tiny").devices == (phone_id,)


def test_a_bundle_is_for_one_device(publisher: Developer) -> None:
    from triparty.common.errors import NotFoundError

    publisher.device("phone")
    tablet, _ = publisher.device("tablet")
    publisher.grant("phone")
    with pytest.raises(NotFoundError, match="developer grant"):
        tablet.pull()


@pytest.mark.parametrize(
    "wanted",
    [
        pytest.param(lambda device: "phone", id="what the developer called it"),
        pytest.param(lambda device: "Ada's", id="what it calls itself"),
        pytest.param(lambda device: device, id="id"),
        pytest.param(lambda device: device.removeprefix("ed25519:")[:12], id="begin of the id"),
        pytest.param(lambda device: device[:24], id="as messages shorten it"),
    ],
)
def test_a_device_is_found_by(wanted: Callable[[str], str], publisher: Developer) -> None:
    _, phone = publisher.device("phone", name="Ada's")
    publisher.device("tablet")
    assert publisher.grant(wanted(phone)).device == phone


def test_a_short_prefix_or_an_unknown_name_names_nobody(publisher: Developer) -> None:
    _, phone = publisher.device("phone")
    for wanted in (phone.removeprefix("ed25519:")[:3], "laptop", "ed25519:", ""):
        with pytest.raises(StateError, match=r"no device .* has enrolled; there are: phone"):
            publisher.find(wanted)


def test_an_ambiguous_name_asks_for_the_id(publisher: Developer) -> None:
    ids = [publisher.device("phone")[1] for _ in range(2)]
    with pytest.raises(StateError, match=r"'phone' names 2 devices .*use the id") as caught:
        publisher.grant("phone")
    assert all(device[:24] in caught.value.message for device in ids)
    assert publisher.manifests(Kind.BUNDLE) == []
    assert publisher.grant(ids[1]).device == ids[1]


def test_the_developers_own_word_for_a_device_comes_first(publisher: Developer) -> None:
    _, phone = publisher.device("phone")
    publisher.device("tablet", name="phone")
    assert publisher.find("phone").id == phone


def test_a_revoked_device_gives_its_name_to_the_next(publisher: Developer) -> None:
    _, lost = publisher.device("phone")
    with publisher.client() as client:
        client.revoke_device(lost)
    assert publisher.find("phone").id == lost
    _, new = publisher.device("phone")
    assert publisher.find("phone").id == new
    assert publisher.find(lost).id == lost


def test_a_revoked_device_gets_nothing(publisher: Developer, sealed: list[Any]) -> None:
    phone, phone_id = publisher.device("phone")
    publisher.grant("phone")
    with publisher.client() as client:
        client.revoke_device(phone_id)
    with pytest.raises(TokenRevokedError, match="revoked"):
        phone.pull()
    with pytest.raises(RevokedError, match="invite it anew"):
        publisher.grant("phone")
    publisher.publish(Path(publisher.home.existing_model("tiny").out))
    assert sealed == [phone_id]
    assert publisher.versions(Kind.BUNDLE) == [1]


def _other_confirmation(raw: bytes) -> str:
    return to_base64url(confirmation(b"k" * 32, identity=raw, sealing=raw))


SWAPS: dict[str, Callable[[], dict[str, str]]] = {
    "identity": lambda: {"identity": PrivateKey.generate().public.to_text()},
    "sealing": lambda: {"sealing": SealingKey.generate().public_text},
    "both": lambda: {
        "identity": PrivateKey.generate().public.to_text(),
        "sealing": SealingKey.generate().public_text,
    },
    "confirmation": lambda: {"confirmation": _other_confirmation(os.urandom(32))},
    "all three": lambda: {
        "identity": PrivateKey.generate().public.to_text(),
        "sealing": SealingKey.generate().public_text,
        "confirmation": _other_confirmation(os.urandom(32)),
    },
    "no confirmation": lambda: {"confirmation": ""},
    "an invite of nobody": lambda: {"invite": "ab" * 32},
}


@pytest.mark.parametrize("what", SWAPS)
def test_a_cloud_that_swaps_gets_nothing(
    what: str, publisher: Developer, sealed: list[Any]
) -> None:
    _, phone = publisher.device("phone")
    publisher.cloud.tamper(phone, **SWAPS[what]())
    with pytest.raises(SealError, match="nothing was sealed"):
        publisher.grant(phone)
    assert sealed == []
    assert publisher.manifests(Kind.BUNDLE) == []
    assert publisher.home.existing_model("tiny").devices == ()


def test_keys_of_one_invite_do_not_count_for_another(
    publisher: Developer, sealed: list[Any]
) -> None:
    """A cloud cannot pass one device's good keys off as another's."""
    _, phone = publisher.device("phone")
    publisher.device("tablet")
    tablet = publisher.find("tablet")
    publisher.cloud.tamper(
        phone,
        identity=to_base64url(tablet.identity),
        sealing=to_base64url(tablet.sealing),
        confirmation=to_base64url(tablet.confirmation),
    )
    with pytest.raises(SealError, match="swapped"):
        publisher.grant(phone)
    publisher.cloud.tamper(phone, invite=tablet.invite)  # all of the tablet but the id
    with pytest.raises(SealError, match="swapped the id"):
        publisher.grant(phone)
    assert sealed == []


def test_an_invite_of_another_home_is_not_trusted(
    publisher: Developer, tmp_path: Path, sealed: list[Any]
) -> None:
    """The same account used from a home that did not make the invite."""
    _, phone = publisher.device("phone")
    for invite in (publisher.home.folder / "invites").iterdir():
        invite.unlink()
    with pytest.raises(SealError, match=r"not made in this home.*nothing was sealed"):
        publisher.grant(phone)
    assert sealed == []


def test_a_swap_after_the_grant_stops_the_next_bundle(
    publisher: Developer, sealed: list[Any]
) -> None:
    _, phone = publisher.device("phone")
    publisher.grant("phone")
    publisher.cloud.tamper(phone, **SWAPS["sealing"]())
    with pytest.raises(SealError, match="swapped"):
        publisher.publish(Path(publisher.home.existing_model("tiny").out))
    assert sealed == [phone]
    assert publisher.versions(Kind.BUNDLE) == [1]


def test_one_swapped_device_does_not_keep_bundles_from_the_others(
    publisher: Developer, sealed: list[Any]
) -> None:
    ids = [publisher.device(label)[1] for label in ("phone", "tablet", "watch")]
    for label in ("phone", "tablet", "watch"):
        publisher.grant(label)
    first, *others = sorted(ids)
    publisher.cloud.tamper(first, **SWAPS["sealing"]())
    sealed.clear()
    with pytest.raises(SealError, match="swapped"):
        publisher.publish(Path(publisher.home.existing_model("tiny").out))
    assert sorted(sealed) == others


def test_granting_twice_changes_nothing(publisher: Developer, sealed: list[Any]) -> None:
    _, phone = publisher.device("phone")
    first, second = publisher.grant("phone"), publisher.grant("phone")
    assert (first.is_new, second.is_new) == (True, False)
    assert sealed == [phone]
    assert publisher.versions(Kind.BUNDLE) == [1]


def test_a_bundle_of_another_model_does_not_count(
    publisher: Developer, protected: Path
) -> None:
    """A cloud that shows one model's bundle for another's cannot keep a device without."""
    publisher.publish(protected, "other")
    publisher.device("phone")
    publisher.grant("phone", "other")
    real = CloudClient.artifacts

    def confused(self: CloudClient, *, kind: Any = None, name: Any = None) -> Any:
        return real(self, kind=kind, name="other")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CloudClient, "artifacts", confused)
        assert publisher.grant("phone", "tiny").is_new
    assert publisher.versions(Kind.BUNDLE) == [1]


def test_holders_get_a_bundle_of_every_new_version(publisher: Developer) -> None:
    phone, phone_id = publisher.device("phone")
    publisher.device("tablet")
    publisher.grant("phone")
    phone.pull()
    out = Path(publisher.home.existing_model("tiny").out)
    done = publisher.publish(out)
    assert [(g.device, g.version, g.is_new) for g in done.granted] == [(phone_id, 2, True)]
    assert [model.version for model in phone.pull().taken] == [2]
    assert publisher.versions(Kind.BUNDLE) == [2, 1]


@pytest.mark.parametrize(
    ("owner", "method", "after"),
    [
        (CloudClient, "upload_blob", False),
        (CloudClient, "upload_blob", True),
        (CloudClient, "publish_artifact", False),
        (CloudClient, "publish_artifact", True),
        (Home, "keep_model", False),
        (Home, "keep_model", True),
    ],
)
def test_granting_again_after_a_cut_succeeds(
    owner: type, method: str, after: bool, publisher: Developer
) -> None:
    phone, phone_id = publisher.device("phone")
    with cut(owner, method, after=after):
        publisher.grant("phone")
    publisher.grant("phone")
    assert publisher.versions(Kind.BUNDLE) == [1]
    assert publisher.home.existing_model("tiny").devices == (phone_id,)
    assert phone.pull().taken


@pytest.mark.parametrize("after", [False, True])
def test_what_a_device_holds_it_has_seen_even_after_a_cut(
    after: bool, publisher: Developer
) -> None:
    """Else a cloud could give it an older bundle next."""
    phone, phone_id = publisher.device("phone")
    publisher.grant("phone")
    with cut(DeviceHome, "hold", after=after):
        phone.pull()
    (home,) = (publisher.folder / "devices").iterdir()
    seen = DeviceHome(home).seen().versions
    assert list(seen.values()) == [1]
    pulled = phone.pull()
    assert [model.version for model in (*pulled.taken, *pulled.kept)] == [1]
    assert DeviceHome(home).access().principal == phone_id


def test_a_folder_that_is_gone_is_named(publisher: Developer) -> None:
    publisher.device("phone")
    out = Path(publisher.home.existing_model("tiny").out)
    out.rename(out.parent / "moved")
    with pytest.raises(StateError, match=r"is gone: publish 'tiny' again"):
        publisher.grant("phone")
    publisher.publish(out.parent / "moved")
    assert publisher.grant("phone").version == 2


def test_which_models_are_granted(developer: Developer, protected: Path) -> None:
    with pytest.raises(SettingsError, match="developer publish"):
        models_to_grant(developer.home, None)
    developer.publish(protected, "one")
    developer.publish(protected, "two")
    assert [m.name for m in models_to_grant(developer.home, None)] == ["one", "two"]
    assert [m.name for m in models_to_grant(developer.home, "two")] == ["two"]
    with pytest.raises(StateError, match=r"'three' is not published.*one, two"):
        models_to_grant(developer.home, "three")


def test_another_developers_devices_do_not_exist(publisher: Developer, tmp_path: Path) -> None:
    other = Developer.new(publisher.cloud, tmp_path / "other")
    other.enroll()
    _, theirs = other.device("phone")
    with pytest.raises(StateError, match="there are: none"):
        publisher.find(theirs)
