"""Instances: forms of one model, each under a key of its own, so that few devices share a key.

    OUT/instances/NAME/000001/   a protected folder as OUT is one: model, device, secrets
    OUT/instances/NAME/000002/

An instance is one version of the model's artifact, and a device has the bundle of that
version: it sees one name, and nothing that tells which instances others have. The cloud sees
who has which. A folder has the number of the version that it was first published as: versions
are never used again, so neither is a key for anything but what it was made for. A compilation
that was cut goes on where it stopped.
"""

from __future__ import annotations

import secrets
import shutil
import time
from collections.abc import Collection, Sequence, Set
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Self

from triparty.common.deviceinfo import DeviceInfo
from triparty.common.errors import PoolEmptyError, SettingsError
from triparty.developer.home import PublishedInstance, PublishedModel

FOLDER = "instances"
POOL = 8
SEEING = "image-text-to-text"


class Sharing(StrEnum):
    """Which devices share a key."""

    ALL = "all"
    COHORT = "cohort"
    DEVICE = "per-device"
    NOBODY = "one-time"


@dataclass(frozen=True)
class Instances:
    """What instances a model is published as.

    Attributes:
        sharing: which devices share a key.
        count: of cohorts, or of one-time instances to be added; else 1.
    """

    sharing: Sharing = Sharing.ALL
    count: int = 1

    @classmethod
    def of(cls, text: str, *, pool: int = POOL) -> Self:
        """Reads `N`, `per-device` or `one-time`.

        Args:
            text: as on the command line.
            pool: one-time instances to be added.

        Raises:
            SettingsError: none of them.
        """
        if text == Sharing.DEVICE:
            return cls(Sharing.DEVICE)
        if text == Sharing.NOBODY:
            return cls(Sharing.NOBODY, pool)
        if text.isascii() and text.isdigit() and 1 <= int(text) <= 1000:
            count = int(text)
            return cls(Sharing.ALL if count == 1 else Sharing.COHORT, count)
        raise SettingsError(
            f"--instances is a number from 1 to 1000, per-device or one-time, got {text!r:.40}"
        )

    @classmethod
    def as_before(cls, before: PublishedModel | None) -> Self:
        """What a model was published as last; by default one form for all devices."""
        if before is None:
            return cls()
        return cls(Sharing(before.sharing), len(before.instances) or 1)

    def check(self, info: DeviceInfo, name: str) -> None:
        """Refuses one-time instances of a model that sees images in its texts.

        Raises:
            SettingsError: a conversation with it is more than one session.
        """
        if self.sharing is Sharing.NOBODY and info.task == SEEING:
            raise SettingsError(
                f"a one-time instance is for one session, and a conversation with '{name}' "
                "about an image is two: one makes the image's rows, the other answers; use "
                "--instances N or per-device"
            )

    def kept(
        self, before: PublishedModel | None, folder: Path, *, holders: Set[str]
    ) -> list[Path]:
        """The instances of before that are published again, with the keys that they have.

        Args:
            before: what is published.
            folder: in which the instances of the name lie.
            holders: ids of the devices that have a bundle and are not revoked.
        """
        if before is None or before.sharing != self.sharing:
            return []
        own = [each for each in before.instances if Path(each.out).parent == folder.resolve()]
        match self.sharing:
            case Sharing.COHORT:
                return [Path(each.out) for each in own][: self.count]
            case Sharing.DEVICE:
                return [Path(each.out) for each in own if holders & set(each.devices)]
            case _:  # one-time instances stay as they are
                return []

    def more(self, kept: Sequence[Path], *, holders: int) -> int:
        """How many instances are made anew.

        Args:
            kept: those that are not.
            holders: devices that have a bundle.
        """
        match self.sharing:
            case Sharing.ALL:
                return 0
            case Sharing.DEVICE:
                return max(holders - len(kept), 0 if kept else 1)
            case _:
                return self.count - len(kept)


@dataclass(frozen=True)
class Compiled:
    """An instance that was compiled.

    Attributes:
        out: its protected folder.
        seconds: that it took; about 0 if it was there.
        size_bytes: of its model.
    """

    out: Path
    seconds: float
    size_bytes: int


def instances_folder(out: Path, name: str) -> Path:
    """Where the instances of a name lie."""
    return out / FOLDER / name


def compile_instances(
    out: Path, name: str, *, kept: Sequence[Path], more: int, version: int
) -> list[Compiled]:
    """Compiles instances of what `out` was made from, by the choices that it was made by.

    Those that are there stay, one that was cut goes on.

    Args:
        out: the protected folder.
        name: under which they are published.
        kept: instances that are there.
        more: instances that come behind them.
        version: of the first one's artifact.

    Raises:
        StateError: the original is gone, or another one lies there.
        CheckpointError: the original cannot be protected any more.
    """
    from triparty.developer.protect import protect  # loads the compiler
    from triparty.developer.protect.secret import SECRETS_FOLDER, Secret

    described = Secret.read(out / SECRETS_FOLDER)
    folder = instances_folder(out, name)
    folder.mkdir(parents=True, exist_ok=True)
    first = version + len(kept)
    compiled = []
    for each in [*kept, *(folder / f"{n:06}" for n in range(first, first + more))]:
        started = time.perf_counter()
        if not each.exists():
            protect(described.source, each, choices=described.choices)
        seconds = round(time.perf_counter() - started, 3)
        compiled.append(Compiled(each, seconds, _size_bytes(each / "model")))
    return compiled


def remove_used(model: PublishedModel, unused: Collection[int]) -> PublishedModel:
    """The record without one-time instances that are used up; their folders are removed.

    Args:
        model: of one-time instances.
        unused: versions that the cloud still has.
    """
    kept = tuple(each for each in model.instances if each.version in unused)
    for used in model.instances:
        if used not in kept:
            shutil.rmtree(used.out, ignore_errors=True)
    return replace(model, instances=kept)


def chosen(
    model: PublishedModel, device: str, *, unused: Collection[int]
) -> PublishedInstance | None:
    """The instance of a model that a device gets; None if one has to be compiled for it.

    A device keeps the instance that it has; which one it gets first is drawn at random.

    Args:
        model: as published.
        device: its id.
        unused: versions that the cloud still has, for one-time instances.

    Raises:
        PoolEmptyError: no one-time instance is left.
    """
    forms = model.forms
    if model.sharing == Sharing.NOBODY:
        forms = tuple(each for each in forms if each.version in unused and not each.devices)
        if not forms:
            raise PoolEmptyError(
                f"no unused one-time instance of '{model.name}' is left: add some with "
                f"'triparty developer publish {model.out} --name {model.name} --instances "
                "one-time'"
            )
        return secrets.choice(forms)
    for each in forms:
        if device in each.devices:
            return each
    if model.sharing == Sharing.DEVICE:
        forms = tuple(each for each in forms if not each.devices)
        return secrets.choice(forms) if forms else None
    return secrets.choice(forms)


def assigned_as_before(
    instances: Sequence[PublishedInstance], before: PublishedModel | None
) -> tuple[PublishedInstance, ...]:
    """New versions of instances, with the devices that have the keys of the same folders."""
    had = {each.out: each.devices for each in before.instances} if before else {}
    return tuple(replace(each, devices=had.get(each.out, ())) for each in instances)


def _size_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
