"""One developer, one device and one clock for the tests of `common`."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import strategies as st

from triparty.common.artifacts import FileEntry, Kind, Manifest
from triparty.common.signing import PrivateKey
from triparty.common.trust import Delegation, Latest, PublishingKey

MakeManifest = Callable[..., Manifest]
Mutated = Callable[[bytes], st.SearchStrategy[bytes]]


@pytest.fixture(scope="session")
def now() -> datetime:
    return datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.fixture(scope="session")
def root() -> PrivateKey:
    return PrivateKey.from_seed(b"r" * 32)


@pytest.fixture(scope="session")
def publishing() -> PrivateKey:
    return PrivateKey.from_seed(b"p" * 32)


@pytest.fixture(scope="session")
def stranger() -> PrivateKey:
    return PrivateKey.from_seed(b"s" * 32)


@pytest.fixture(scope="session")
def device() -> PrivateKey:
    return PrivateKey.from_seed(b"d" * 32)


@pytest.fixture(scope="session")
def delegation(root: PrivateKey, publishing: PrivateKey, now: datetime) -> Delegation:
    key = PublishingKey(publishing.public, now + timedelta(days=365))
    return Delegation(root=root.public, keys=(key,), version=3, created=now)


@pytest.fixture(scope="session")
def latest(root: PrivateKey, publishing: PrivateKey, now: datetime) -> Latest:
    return Latest(
        developer=root.public.key_id,
        sequence=5,
        created=now,
        expires=now + timedelta(days=7),
        versions={"model/tiny": 4, "bundle/tiny": 2},
        revoked=("model/tiny@7",),
        signer=publishing.public.key_id,
    )


@pytest.fixture(scope="session")
def make_manifest(
    root: PrivateKey, publishing: PrivateKey, device: PrivateKey, now: datetime
) -> MakeManifest:
    """A manifest of version 4 with one or more fields changed."""

    def make(**changed: object) -> Manifest:
        is_bundle = changed.get("kind") is Kind.BUNDLE
        path = "bundle.sealed" if is_bundle else "config.json"
        fields: dict[str, object] = {
            "kind": Kind.MODEL,
            "name": "tiny",
            "version": 4,
            "epoch": 1,
            "developer": root.public.key_id,
            "signer": publishing.public.key_id,
            "files": (FileEntry(path, "a" * 64, 17),),
            "created": now,
            "expires": now + timedelta(days=30),
            "recipient": device.public.key_id if is_bundle else None,
        }
        return Manifest(**{**fields, **changed})  # type: ignore[arg-type]

    return make


@pytest.fixture(scope="session")
def mutated() -> Mutated:
    """All ways to change one byte: flip bits, insert one, delete one, cut the rest off."""

    def strategy(data: bytes) -> st.SearchStrategy[bytes]:
        position = st.integers(0, len(data) - 1)
        byte = st.integers(1, 255)

        def flip(at: int, bits: int) -> bytes:
            return data[:at] + bytes([data[at] ^ bits]) + data[at + 1 :]

        def insert(at: int, value: int) -> bytes:
            return data[:at] + bytes([value]) + data[at:]

        def delete(at: int) -> bytes:
            return data[:at] + data[at + 1 :]

        return st.one_of(
            st.builds(flip, position, byte),
            st.builds(insert, st.integers(0, len(data)), st.integers(0, 255)),
            st.builds(delete, position),
            st.builds(lambda at: data[:at], position),
        )

    return strategy
