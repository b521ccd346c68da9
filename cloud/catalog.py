"""Published models, laid out as folders for the engine.

A folder is made of hard links to verified blobs (copies from another file system or an object
store), appears whole, and is hashed again when it is first used after a start.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
import shutil
import threading
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from sqlalchemy import select
from sqlalchemy.orm import Session

from triparty.cloud.accounts import Principal
from triparty.cloud.blobs import BlobKey, BlobStore, developer_folder
from triparty.cloud.database import Database
from triparty.cloud.inspection import BlobState, check_blob
from triparty.cloud.once import remove_spent, spend, spent_error, was_spent_by
from triparty.cloud.serving.hosting import ServableModel
from triparty.cloud.state import Now, utc_now
from triparty.cloud.tables import ArtifactRow, SpentRow, StatementRow
from triparty.common.artifacts import Manifest, verify_folder
from triparty.common.errors import ArtifactError, NotFoundError, RetiredError, UnavailableError
from triparty.common.files import make_private_folder, safe_relative, sync_folder

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PublishedModel:
    """A model that the engine may load.

    Attributes:
        developer: whose it is.
        name: its name among the developer's models.
        version: one that is neither revoked nor expired.
        epoch: the key generation.
        current: the lowest version that its developer calls current.
        once: whether it is for one session alone.
        manifest: what was signed.
        folder: verified files, a Hugging Face folder.
    """

    developer: str
    name: str
    version: int
    epoch: int
    current: int
    once: bool
    manifest: Manifest
    folder: Path


@dataclass
class _Shelf:
    """One version of one model: its lock, and whether its files were hashed since the start."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    is_verified: bool = False


class Catalog:
    """Finds the model that a principal may use. Hashing blocks: call it from a thread."""

    def __init__(
        self, database: Database, blobs: BlobStore, folder: Path, *, clock: Now = utc_now
    ) -> None:
        """Serves what `database` lists from `blobs`, laid out under `folder`."""
        make_private_folder(folder)
        self._database = database
        self._blobs = blobs
        self._folder = folder
        self._clock = clock
        self._lock = threading.Lock()
        self._shelves: dict[Path, _Shelf] = {}

    def model_for(
        self, principal: Principal, name: str, *, version: int | None = None
    ) -> PublishedModel:
        """The newest usable version of a model; for a device, the version of its bundle.

        So a device goes on with the version that it has a bundle for while its developer
        publishes the next one, until it is granted that or its own is revoked.

        Args:
            principal: a device with a bundle for the model, or its developer.
            name: the model's name.
            version: of the bundle that a device uses; None: of its newest.

        Raises:
            SpentError: a one-time instance that the device used.
            RetiredError: the version was taken out of use.
            NotFoundError: no such model, or not for this principal.
            UnavailableError: the files on disk are damaged.
        """
        now = self._clock()
        with self._database.reading() as session:
            if principal.role == "device":
                bundle = _bundle_of(session, principal, name, now, version=version)
                version = bundle.version
            current = _current(session, principal.developer, name)
            row = _newest(session, principal, "model", name, now, version=version)
        manifest = Manifest.from_bytes(row.manifest)
        folder = self._folder / developer_folder(row.developer) / name / str(row.version)
        with self._lock:
            shelf = self._shelves.setdefault(folder, _Shelf())
        with shelf.lock:
            if not shelf.is_verified:
                self._verify(manifest, folder)
                shelf.is_verified = True
        return PublishedModel(
            developer=row.developer,
            name=name,
            version=row.version,
            epoch=row.epoch,
            current=current or row.version,
            once=manifest.once,
            manifest=manifest,
            folder=folder,
        )

    def admit(self, principal: str, model: ServableModel) -> None:
        """Notes the one use of a one-time instance; blocks on the database.

        Raises:
            SpentError: it was used before.
        """
        if model.once:
            spend(
                self._database,
                principal,
                model.developer,
                model.name,
                model.version,
                now=self._clock(),
            )

    def remove_used(self, developer: str, name: str, version: int) -> None:
        """Deletes a one-time instance whose session has ended."""
        one = (developer, name, version)
        remove_spent(self._database, self._blobs, self._folder, only=one)
        with self._lock:
            self._shelves.pop(
                self._folder / developer_folder(developer) / name / str(version), None
            )

    def remove_all_used(self) -> None:
        """Deletes the one-time instances that a cloud before this one left."""
        remove_spent(self._database, self._blobs, self._folder)

    def drop_unfinished(self) -> None:
        """Removes folders that were being laid out when the process died."""
        for unfinished in self._folder.glob("*/*/.*.part"):
            shutil.rmtree(unfinished, ignore_errors=True)

    def _verify(self, manifest: Manifest, folder: Path) -> None:
        """Lays the folder out if need be, and hashes it."""
        if folder.is_dir():
            try:
                verify_folder(manifest, folder)
            except ArtifactError:
                shutil.rmtree(folder)
            else:
                return
        try:
            self._lay_out(manifest, folder)
            verify_folder(manifest, folder)
        except (ArtifactError, NotFoundError) as error:
            shutil.rmtree(folder, ignore_errors=True)
            self._name_damage(manifest)
            raise UnavailableError(
                f"the files of model '{manifest.name}' on the cloud are damaged; "
                "its developer has to publish it again"
            ) from error

    def _name_damage(self, manifest: Manifest) -> None:
        """Says which blobs are missing or altered; altered ones make room for an upload."""
        for file in manifest.files:
            key = BlobKey(manifest.developer, file.sha256)
            state = check_blob(self._blobs.verified, key, file.size)
            if state is BlobState.WHOLE:
                continue
            if state is BlobState.ALTERED:
                self._blobs.set_aside(key)
            _log.error(
                f"a blob is {state}: its developer has to publish the model again",
                extra={
                    "kind": manifest.kind.value,
                    "model": manifest.name,
                    "version": manifest.version,
                    "developer": manifest.developer,
                    "blob": file.sha256,
                },
            )

    def _lay_out(self, manifest: Manifest, folder: Path) -> None:
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = folder.with_name(f".{folder.name}.{secrets.token_hex(8)}.part")
        try:
            for file in manifest.files:
                target = temporary / safe_relative(file.path)
                target.parent.mkdir(parents=True, exist_ok=True)
                self._blobs.fetch(manifest.developer, file.sha256, target)
            os.rename(temporary, folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        sync_folder(folder.parent)


def _bundle_of(
    session: Session, principal: Principal, name: str, now: datetime, *, version: int | None
) -> ArtifactRow:
    """The newest bundle of a device that it may use, or the one of a version."""
    try:
        return _newest(
            session, principal, "bundle", name, now, recipient=principal.id, version=version
        )
    except NotFoundError:
        if version is None:
            raise
        if was_spent_by(session, principal, name, version):
            raise spent_error(name, version) from None
        if _had(session, principal, name, version):
            raise RetiredError(
                f"version {version} of '{name}' is no longer used: run 'triparty device pull'"
            ) from None
        raise


def _had(session: Session, principal: Principal, name: str, version: int) -> bool:
    """Whether a device has a bundle that it must not use any more."""
    bundle = select(ArtifactRow.number).where(
        ArtifactRow.developer == principal.developer,
        ArtifactRow.kind == "bundle",
        ArtifactRow.name == name,
        ArtifactRow.version == version,
        ArtifactRow.recipient == principal.id,
    )
    return session.scalar(bundle) is not None


def _current(session: Session, developer: str, name: str) -> int | None:
    """The lowest current version of a model, by its developer's latest statement."""
    latest = session.scalar(
        select(StatementRow.latest).where(StatementRow.developer == developer)
    )
    if latest is None:
        return None
    versions: dict[str, int] = json.loads(latest)["versions"]
    return versions.get(f"model/{name}")


def _newest(
    session: Session,
    principal: Principal,
    kind: str,
    name: str,
    now: datetime,
    *,
    recipient: str = "",
    version: int | None = None,
) -> ArtifactRow:
    line = (
        (ArtifactRow.developer == principal.developer)
        & (ArtifactRow.kind == kind)
        & (ArtifactRow.name == name)
        & (ArtifactRow.recipient == recipient)
    )
    if version is not None:
        line &= ArtifactRow.version == version
    spent = (
        select(SpentRow.version)
        .where(
            SpentRow.developer == ArtifactRow.developer,
            SpentRow.name == ArtifactRow.name,
            SpentRow.version == ArtifactRow.version,
        )
        .exists()
    )
    usable = ArtifactRow.revoked.is_(False) & (ArtifactRow.expires > now) & ~spent
    newest_first = select(ArtifactRow).where(line, usable).order_by(ArtifactRow.version.desc())
    row = session.scalars(newest_first.limit(1)).one_or_none()
    if row is None:
        raise NotFoundError(
            f"no model '{name}' for you here; 'triparty device models' lists them"
        )
    return row
