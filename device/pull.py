"""Getting bundles, gates, filters and links: all is checked before anything is replaced.

1. The delegation must come from the root pinned at enrolment, and be no older than seen.
2. The latest statement must be signed under it, fresh, and no older than seen.
3. A bundle's manifest must be signed by the developer for this device, be current, and be
   neither expired, revoked, nor older than seen.
4. Its one blob must have the manifest's hash, and open with this device's key for this device,
   model, version and epoch.
5. Only then it takes the place of the bundle before, and what was seen is raised.

Gates, filters and links are for all devices of their developer and not sealed: in the place of
step 4 all files must have the manifest's hashes and be what they say (`pull_edge.py`).
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from triparty.common.access import Access, renew_if_due
from triparty.common.artifacts import Manifest, verify_manifest
from triparty.common.clocks import judged_at, naming_clocks
from triparty.common.console import progress
from triparty.common.delegation import Delegation, verify_delegation
from triparty.common.entries import Kind
from triparty.common.errors import (
    ArtifactError,
    CheckpointError,
    ManifestError,
    NotFoundError,
    SealError,
    TripartyError,
)
from triparty.common.files import locked, replace_folder
from triparty.common.filters import LIMIT_BYTES as FILTER_LIMIT_BYTES
from triparty.common.gates import LIMIT_BYTES as GATE_LIMIT_BYTES
from triparty.common.keying import Bundle
from triparty.common.latest import Latest, Seen, verify_latest
from triparty.common.links.folder import LIMIT_BYTES as LINK_LIMIT_BYTES
from triparty.common.sealing import SEALED_FILE, open_sealed
from triparty.common.transport import CloudClient
from triparty.common.trust import SignedDocument
from triparty.device.home import HeldFilter, HeldGate, HeldLinks, HeldModel, Home
from triparty.device.pull_edge import check_filter, check_gate, check_links, holds, take

BUNDLE_LIMIT_BYTES = 64 << 30
_LIMITS = {
    Kind.BUNDLE: BUNDLE_LIMIT_BYTES,
    Kind.GATE: GATE_LIMIT_BYTES,
    Kind.FILTER: FILTER_LIMIT_BYTES,
    Kind.LINK: LINK_LIMIT_BYTES,
}


@dataclass(frozen=True)
class Pulled:
    """What a pull did.

    Attributes:
        taken: bundles that are new.
        kept: bundles that were current already.
        taken_gates: gates that are new.
        kept_gates: gates that were current already.
        taken_filters: filters that are new.
        kept_filters: filters that were current already.
        taken_links: links that are new.
        kept_links: links that were current already.
    """

    taken: tuple[HeldModel, ...]
    kept: tuple[HeldModel, ...]
    taken_gates: tuple[HeldGate, ...] = ()
    kept_gates: tuple[HeldGate, ...] = ()
    taken_filters: tuple[HeldFilter, ...] = ()
    kept_filters: tuple[HeldFilter, ...] = ()
    taken_links: tuple[HeldLinks, ...] = ()
    kept_links: tuple[HeldLinks, ...] = ()


@dataclass(frozen=True)
class _Pulling:
    """What all artifacts of one pull are checked against, and where they go."""

    client: CloudClient
    home: Home
    access: Access
    delegation: Delegation
    latest: Latest
    name: str | None
    now: datetime


def pull(home: Home, *, name: str | None, now: datetime) -> Pulled:
    """Brings this device's bundles and its developer's gates, filters and links up to date.

    Args:
        home: of an enrolled device.
        name: one model, gate, filter or set of links; None for all.
        now: for expiry times; where the cloud's clock is ahead of it, that counts.

    Raises:
        NotFoundError: nothing was granted or published, or not under this name.
        ArtifactError, SealError: an artifact that must not be used; what was held under its
            name stays usable, and the others are up to date.
    """
    access = renew_if_due(home.folder, home.access(), now=now)
    failures: list[TripartyError] = []
    with access.client() as client, naming_clocks(now, lambda: client.connection.cloud_time):
        delegation, latest, seen = _current(client, access, home.seen(), now)
        home.save_seen(seen)
        judged = judged_at(now, client.connection.cloud_time)
        pulling = _Pulling(client, home, access, delegation, latest, name, judged)
        bundles = _bring_all(pulling, Kind.BUNDLE, _bring_bundle, failures)
        gates = _bring_all(pulling, Kind.GATE, _bring_gate, failures)
        filters = _bring_all(pulling, Kind.FILTER, _bring_filter, failures)
        links = _bring_all(pulling, Kind.LINK, _bring_links, failures)
        if failures:
            raise failures[0]
    has_any = bool(bundles or gates or filters or links)
    if name is not None and not has_any and home.used(name):
        raise home.pool_empty(name)
    if not has_any:
        wanted = f"model '{name}'" if name else "any model"
        raise NotFoundError(
            f"no bundle of {wanted} for this device: ask the developer to run "
            f"'triparty developer grant {access.principal}'"
        )
    models = [(_held(home, manifest), is_new) for manifest, is_new in bundles]
    held = [(HeldGate(m.name, m.version), is_new) for m, is_new in gates]
    brought = [(HeldFilter(m.name, m.version), is_new) for m, is_new in filters]
    linked = [(HeldLinks(m.name, m.version), is_new) for m, is_new in links]
    return Pulled(
        taken=tuple(model for model, is_new in models if is_new),
        kept=tuple(model for model, is_new in models if not is_new),
        taken_gates=tuple(gate for gate, is_new in held if is_new),
        kept_gates=tuple(gate for gate, is_new in held if not is_new),
        taken_filters=tuple(one for one, is_new in brought if is_new),
        kept_filters=tuple(one for one, is_new in brought if not is_new),
        taken_links=tuple(one for one, is_new in linked if is_new),
        kept_links=tuple(one for one, is_new in linked if not is_new),
    )


def pull_all(homes: Sequence[Home], *, name: str | None, now: datetime) -> Pulled:
    """Brings the bundles and gates of several accounts up to date, each whatever the others do.

    Args:
        homes: enrolled accounts of one device.
        name: of one model or gate, which one of them has at least; None for all.
        now: for expiry times.

    Raises:
        NotFoundError: nothing was granted or published to any.
        TripartyError: of the first account that failed otherwise; the others are up to date.
    """
    done: list[Pulled] = []
    failures: list[TripartyError] = []
    for home in homes:
        home.access()
        try:
            with locked(home.folder):
                done.append(pull(home, name=name, now=now))
        except TripartyError as error:
            failures.append(error)
    serious = [error for error in failures if not isinstance(error, NotFoundError)]
    if serious or not done:
        raise [*serious, *failures][0]
    return Pulled(
        taken=tuple(model for each in done for model in each.taken),
        kept=tuple(model for each in done for model in each.kept),
        taken_gates=tuple(gate for each in done for gate in each.taken_gates),
        kept_gates=tuple(gate for each in done for gate in each.kept_gates),
        taken_filters=tuple(one for each in done for one in each.taken_filters),
        kept_filters=tuple(one for each in done for one in each.kept_filters),
        taken_links=tuple(one for each in done for one in each.taken_links),
        kept_links=tuple(one for each in done for one in each.kept_links),
    )


_Bring = Callable[[_Pulling, SignedDocument, Manifest], bool]


def _bring_all(
    pulling: _Pulling, kind: Kind, bring: _Bring, failures: list[TripartyError]
) -> list[tuple[Manifest, bool]]:
    """What is current of a kind, and whether it was taken; others go to `failures`."""
    done: list[tuple[Manifest, bool]] = []
    current: dict[str, bool] = {}  # what is dealt with, and whether it is for one session
    for signed in pulling.client.artifacts(kind=kind, name=pulling.name):
        claimed = _claimed(signed)
        if claimed is not None and _is_passed_over(claimed, current, pulling.home):
            continue
        try:
            manifest = verify_manifest(
                signed,
                delegation=pulling.delegation,
                now=pulling.now,
                kind=kind,
                name=pulling.name,
                recipient=pulling.access.principal,
                # One-time instances come in any order; used ones are known one by one.
                seen=None if claimed is not None and claimed.once else pulling.home.seen(),
                latest=pulling.latest,
                limit_bytes=_LIMITS[kind],
            )
            current[manifest.name] = manifest.once
            done.append((manifest, bring(pulling, signed, manifest)))
        except (ArtifactError, SealError, CheckpointError) as error:
            failures.append(error)  # the others are brought all the same
    return done


def _is_passed_over(claimed: Manifest, current: Mapping[str, bool], home: Home) -> bool:
    """Whether it is older than what is dealt with, or a one-time instance that was used."""
    if claimed.once and claimed.version in home.used(claimed.name):
        return True
    return claimed.name in current and not (claimed.once and current[claimed.name])


def _bring_bundle(pulling: _Pulling, _: SignedDocument, manifest: Manifest) -> bool:
    """Takes a bundle unless this device holds it, and it opens; whether it was taken."""
    home = pulling.home
    model = _held(home, manifest)
    held = home.held_once(model.name) if model.once else home.held()
    if model in held and _opens(home, model):
        return False
    _take(pulling.client, home, pulling.access, manifest)
    # In this order: cut in between, the next pull takes it again, and nothing older.
    if not manifest.once:
        home.save_seen(home.seen().raised(manifest))
    home.hold(model)
    return True


def _held(home: Home, manifest: Manifest) -> HeldModel:
    return HeldModel(
        manifest.name, manifest.version, manifest.epoch, home.account_name, manifest.once
    )


def _folder(home: Home, model: HeldModel) -> Path:
    """Where the opened bundle of a model lies, or will lie."""
    if model.once:
        return home.once_folder(model.name, model.version)
    return home.bundle_folder(model.name)


def _bring_gate(pulling: _Pulling, signed: SignedDocument, manifest: Manifest) -> bool:
    """Takes a gate unless this device holds it, and it is whole; whether it was taken."""
    target = pulling.home.gate_folder(manifest.name)
    return _bring_edge(pulling, signed, manifest, target, check_gate)


def _bring_filter(pulling: _Pulling, signed: SignedDocument, manifest: Manifest) -> bool:
    """The same for a filter."""
    target = pulling.home.filter_folder(manifest.name)
    return _bring_edge(pulling, signed, manifest, target, check_filter)


def _bring_links(pulling: _Pulling, signed: SignedDocument, manifest: Manifest) -> bool:
    """The same for links."""
    target = pulling.home.links_folder(manifest.name)
    return _bring_edge(pulling, signed, manifest, target, check_links)


def _bring_edge(
    pulling: _Pulling,
    signed: SignedDocument,
    manifest: Manifest,
    target: Path,
    check: Callable[[Path], object],
) -> bool:
    if holds(target, signed, manifest):
        return False
    take(pulling.client, target, signed, manifest, check)
    pulling.home.save_seen(pulling.home.seen().raised(manifest))
    return True


def _current(
    client: CloudClient, access: Access, seen: Seen, now: datetime
) -> tuple[Delegation, Latest, Seen]:
    """The developer's verified delegation and latest statement, and what is seen by them."""
    developer = access.developer
    state = client.statements()
    now = judged_at(now, client.connection.cloud_time)
    delegation = verify_delegation(
        state.delegation,
        root_fingerprint=developer,
        seen_version=seen.delegation_version(developer),
        now=now,
    )
    latest = verify_latest(
        state.latest, delegation, seen_sequence=seen.sequence(developer), now=now
    )
    return delegation, latest, seen.raised_delegation(delegation).raised_latest(latest)


def _claimed(signed: SignedDocument) -> Manifest | None:
    """What a manifest says, not believed before step 3; None if it says nothing."""
    try:
        return Manifest.from_bytes(signed.payload)
    except ArtifactError:
        return None  # its signature is checked before this is reported


def _opens(home: Home, model: HeldModel) -> bool:
    """Whether the bundle of a record is there and whole."""
    try:
        return Bundle.open(_folder(home, model)).info.epoch == model.epoch
    except (CheckpointError, ArtifactError):
        return False


def _take(client: CloudClient, home: Home, access: Access, manifest: Manifest) -> None:
    """Downloads, opens and checks one bundle; the one before stays until then."""
    if [file.path for file in manifest.files] != [SEALED_FILE]:
        raise ManifestError(f"a bundle holds one file, {SEALED_FILE}")
    target = _folder(home, _held(home, manifest))
    sealed, opened = (target.with_name(f".{target.name}.{w}") for w in ("sealed", "opened"))
    file = manifest.files[0]
    with progress(f"pulling {manifest.name}", file.size) as advance:
        client.download_blob(sealed, sha256=file.sha256, size=file.size, on_bytes=advance)
    try:
        open_sealed(
            sealed,
            opened,
            home.sealing_key(),
            device=access.principal,
            model=manifest.name,
            version=manifest.version,
            epoch=manifest.epoch,
        )
        held = Bundle.open(opened).info.epoch
        if held != manifest.epoch:
            raise CheckpointError(
                f"the bundle of '{manifest.name}' says epoch {held}, its manifest "
                f"{manifest.epoch}: tell the developer"
            )
        replace_folder(opened, target)
    finally:
        sealed.unlink(missing_ok=True)
        shutil.rmtree(opened, ignore_errors=True)
