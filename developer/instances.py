"""Instances: forms of one model, each under a key of its own, so that few devices share a key.

    OUT/instances/001/   a protected folder as OUT is one: model, device, secrets
    OUT/instances/002/

An instance is one version of the model's artifact, and a device has the bundle of that
version: it sees one name, and nothing that tells which instances others have. The cloud sees
who has which. A compilation that was cut goes on where it stopped.
"""

from __future__ import annotations

import secrets
import shutil
import time
from collections.abc import Collection, Iterable, Sequence, Set
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Self

from triparty.common.deviceinfo import DeviceInfo
from triparty.common.errors import PoolEmptyError, SettingsError
from triparty.developer.home import PublishedInstance, PublishedModel

FOLDER = "instances"
POOL = 8


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
        """Refuses one-time instances of a model that keeps no session.

        Raises:
            SettingsError: an encoder or a classifier.
        """
        if self.sharing is Sharing.NOBODY and info.task != "causal-lm":
            raise SettingsError(
                f"a one-time instance is for one session, and '{name}' keeps none (its task "
                f"is {info.task}): use --instances N or per-device"
            )

    def numbers(
        self, before: PublishedModel | None, out: Path, *, holders: Set[str]
    ) -> list[int]:
        """The numbers of the instances to be published from `out`.

        Args:
            before: what is published; one-time instances are added behind its.
            out: the protected folder.
            holders: ids of the devices that have a bundle and are not revoked.
        """
        taken = _numbers_in(before, out)
        first = max(taken, default=0) + 1
        match self.sharing:
            case Sharing.ALL:
                return []
            case Sharing.COHORT:
                return list(range(1, self.count + 1))
            case Sharing.DEVICE:
                kept = [number for number, whose in taken.items() if holders & set(whose)]
                served = {device for number in kept for device in taken[number]}
                more = len(holders - served) or (0 if kept else 1)
                return [*kept, *range(first, first + more)]
            case Sharing.NOBODY:
                return list(range(first, first + self.count))


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


def instance_folder(out: Path, number: int) -> Path:
    """Where an instance lies."""
    return out / FOLDER / f"{number:03}"


def compile_instances(out: Path, numbers: Iterable[int]) -> list[Compiled]:
    """Compiles instances of what `out` was made from, by the choices that it was made by.

    Those that are there stay, one that was cut goes on.

    Raises:
        StateError: the original is gone, or another one lies there.
        CheckpointError: the original cannot be protected any more.
    """
    from triparty.developer.protect import protect  # loads the compiler
    from triparty.developer.protect.secret import SECRETS_FOLDER, Secret

    described = Secret.read(out / SECRETS_FOLDER)
    compiled = []
    for number in numbers:
        folder, started = instance_folder(out, number), time.perf_counter()
        if not folder.exists():
            protect(described.source, folder, choices=described.choices)
        seconds = round(time.perf_counter() - started, 3)
        compiled.append(Compiled(folder, seconds, _size_bytes(folder / "model")))
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


def next_number(model: PublishedModel) -> int:
    """The number behind those of a model's instances in its folder."""
    return max(_numbers_in(model, Path(model.out)), default=0) + 1


def _numbers_in(model: PublishedModel | None, out: Path) -> dict[int, tuple[str, ...]]:
    """The devices of a model's instances that lie in a folder, by the instances' numbers."""
    parent = (out / FOLDER).resolve()
    instances = model.instances if model else ()
    return {
        int(Path(each.out).name): each.devices
        for each in instances
        if Path(each.out).parent == parent
    }


def _size_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
