"""A new publishing key: devices follow without enrolling again, a leaked key is forgotten."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from live_cloud import Developer, utc_now

from triparty.common.errors import ArtifactError, SignatureError, StateError
from triparty.common.signing import PrivateKey
from triparty.developer.statements import renew_latest


def renew(developer: Developer, *, forget: bool = False) -> None:
    developer.home.renew_publishing_key(key_days=30, now=developer.now(), forget=forget)
    with developer.client() as client:
        renew_latest(developer.home, client, now=developer.now(), days=7)


def test_devices_follow_a_new_key(developer: Developer, protected: Path) -> None:
    developer.publish(protected)
    phone, _ = developer.device("phone")
    developer.grant("phone")
    assert phone.pull().taken
    root = developer.home.root().public
    before = developer.home.publishing().public

    renew(developer)

    assert developer.home.root().public == root
    assert developer.home.publishing().public != before
    assert developer.home.delegation(utc_now()).version == 2
    assert phone.pull().kept, "what the key before signed still counts"
    developer.publish(protected)
    assert [model.version for model in phone.pull().taken] == [2]
    tablet, _ = developer.device("tablet")
    developer.grant("tablet")
    assert tablet.pull().taken


def test_what_a_forgotten_key_signed_is_refused_until_it_is_published_again(
    developer: Developer, protected: Path
) -> None:
    developer.publish(protected)
    phone, _ = developer.device("phone")
    developer.grant("phone")
    phone.pull()
    renew(developer, forget=True)
    with pytest.raises(SignatureError):
        phone.pull()
    assert phone.models(), "what the device holds stays"
    developer.publish(protected)
    assert [model.version for model in phone.pull().taken] == [2]


def test_a_device_does_not_go_back_to_the_key_before(
    developer: Developer, protected: Path
) -> None:
    developer.publish(protected)
    phone, _ = developer.device("phone")
    developer.grant("phone")
    with developer.client() as client:
        old = client.statements()
    renew(developer)
    phone.pull()
    with developer.client() as client, pytest.raises(ArtifactError):
        client.put_statements(old.delegation, old.latest)


def test_without_the_root_nothing_changes(developer: Developer) -> None:
    (developer.home.folder / "keys" / "root.key").unlink()
    before = developer.home.publishing().public
    with pytest.raises(StateError, match=r"root\.key"):
        developer.home.renew_publishing_key(key_days=30, now=utc_now())
    assert developer.home.publishing().public == before


def test_keys_past_their_time_are_not_carried_on(developer: Developer) -> None:
    later = utc_now() + timedelta(days=31)
    delegation = developer.home.renew_publishing_key(key_days=30, now=later)
    assert [key.public for key in delegation.keys] == [developer.home.publishing().public]


def test_a_cut_renewal_leaves_the_keys_as_they_were(
    developer: Developer, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = developer.home.publishing().public

    def fail(*_: object, **__: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(PrivateKey, "save", fail)
    with pytest.raises(OSError, match="no space"):
        developer.home.renew_publishing_key(key_days=30, now=utc_now())
    assert developer.home.publishing().public == before
    assert sorted(path.name for path in developer.home.folder.glob(".keys*")) == []
