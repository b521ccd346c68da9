"""Which instances are published, and who gets which: the rules, and rotation of several."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from live_cloud import Developer

from triparty.common.artifacts import Kind
from triparty.common.deviceinfo import TASKS
from triparty.common.errors import PoolEmptyError, SettingsError
from triparty.developer.home import PublishedInstance, PublishedModel
from triparty.developer.instances import Instances, Sharing, chosen
from triparty.developer.rotate import rotate


@pytest.mark.parametrize("text", ["0", "-1", "1001", "two", "per device", "", "2.0", "²"])
def test_what_is_no_plan_is_refused(text: str) -> None:
    with pytest.raises(SettingsError, match="a number from 1 to 1000, per-device or one-time"):
        Instances.of(text)


def test_plans_are_read() -> None:
    assert Instances.of("1") == Instances(Sharing.ALL)
    assert Instances.of("3") == Instances(Sharing.COHORT, 3)
    assert Instances.of("per-device") == Instances(Sharing.DEVICE)
    assert Instances.of("one-time", pool=5) == Instances(Sharing.NOBODY, 5)


@pytest.mark.parametrize("task", TASKS)
def test_a_model_whose_conversations_are_more_than_one_session_has_no_one_time_instances(
    task: str,
) -> None:
    info: Any = SimpleNamespace(task=task)
    Instances.of("per-device").check(info, "m")
    if task != "image-text-to-text":
        Instances.of("one-time").check(info, "m")
        return
    with pytest.raises(SettingsError, match=r"'m' about an image is two.*per-device"):
        Instances.of("one-time").check(info, "m")


def model(
    sharing: Sharing, *devices: tuple[str, ...], out: Path = Path("/out")
) -> PublishedModel:
    """A record with one instance for each tuple of devices."""
    instances = tuple(
        PublishedInstance(number, str(out / "instances" / "m" / f"{number:06}"), whose)
        for number, whose in enumerate(devices, start=1)
    )
    return PublishedModel("m", str(out), 1, 1, (), sharing.value, instances)


def test_cohorts_are_drawn_evenly_and_kept() -> None:
    shared = model(Sharing.COHORT, ("a",), (), ())
    drawn = Counter(chosen(shared, "new", unused=()).version for _ in range(600))
    assert set(drawn) == {1, 2, 3}
    assert min(drawn.values()) > 120
    assert {chosen(shared, "a", unused=()).version for _ in range(20)} == {1}


def test_own_instances_are_given_to_nobody_else() -> None:
    own = model(Sharing.DEVICE, ("a",), ())
    assert chosen(own, "a", unused=()).version == 1
    assert chosen(own, "b", unused=()).version == 2
    assert chosen(model(Sharing.DEVICE, ("a",)), "b", unused=()) is None


def test_one_time_instances_are_granted_once() -> None:
    pool = model(Sharing.NOBODY, ("a",), (), (), ())
    drawn = {chosen(pool, "a", unused={1, 2, 4}).version for _ in range(100)}
    assert drawn == {2, 4}  # not the one that was granted, nor the one that is used up
    with pytest.raises(PoolEmptyError, match="publish /out --name m --instances one-time"):
        chosen(pool, "a", unused={1, 3} - {3})


def test_a_key_serves_again_only_what_it_was_made_for() -> None:
    folder = Path("/out/instances/m")
    own, two = model(Sharing.DEVICE, ("gone",), ("a",)), model(Sharing.COHORT, ("a",), ())
    pool = model(Sharing.NOBODY, ("a",), ())

    def plan(text: str, before: PublishedModel | None, *holders: str) -> tuple[list[str], int]:
        wanted = Instances.of(text, pool=2)
        kept = wanted.kept(before, folder, holders=set(holders))
        return [path.name for path in kept], wanted.more(kept, holders=len(holders))

    assert plan("per-device", own, "a", "b") == (["000002"], 1)
    assert plan("per-device", None) == ([], 1)
    assert plan("2", two) == (["000001", "000002"], 0)
    assert plan("3", two) == (["000001", "000002"], 1)
    assert plan("one-time", pool) == ([], 2)
    assert plan("1", two) == ([], 0)
    # Another sharing, another name or another folder: other keys.
    assert plan("per-device", two, "a") == ([], 1)
    assert plan("2", own, "a") == ([], 2)
    folder = Path("/out/instances/n")
    assert plan("2", two) == ([], 2)
    folder = Path("/elsewhere/instances/m")
    assert plan("2", two) == ([], 2)


def test_rotation_makes_as_many_instances_under_new_keys(
    developer: Developer, protected: Path
) -> None:
    for name in ("phone", "tablet"):
        developer.device(name)
    developer.publish(protected, instances=Instances.of("2"))
    for name in ("phone", "tablet"):
        developer.grant(name)
    done = rotate(
        developer.home, "tiny", source=None, settings=developer.settings, now=developer.now()
    )
    assert [form.version for form in done.model.forms] == [3, 4]
    assert done.model.epoch == 2
    assert {granted.version for granted in done.granted} <= {3, 4}
    assert len(done.granted) == 2
    assert set(developer.latest().revoked) == {
        f"{kind}/tiny@{version}" for kind in ("model", "bundle") for version in (1, 2)
    }
    assert developer.latest().versions["model/tiny"] == 3
    keys = {
        (Path(form.out) / "secrets" / "master.key").read_bytes() for form in done.model.forms
    } | {path.read_bytes() for path in protected.glob("instances/tiny/*/secrets/master.key")}
    assert len(keys) == 4


def test_only_the_models_of_instances_leave_the_machine(
    developer: Developer, protected: Path
) -> None:
    developer.publish(protected, "secret", instances=Instances.of("2"))
    blobs = developer.cloud.app.state.settings.blob_folder
    stored = b"".join(path.read_bytes() for path in blobs.rglob("*") if path.is_file())
    for number in ("000001", "000002"):
        folder = protected / "instances" / "secret" / number
        assert (folder / "model" / "model.safetensors").read_bytes() in stored
        assert (folder / "secrets" / "master.key").read_bytes() not in stored
        assert (folder / "device" / "head.safetensors").read_bytes() not in stored
    first, second = developer.manifests(Kind.MODEL, "secret")
    weights = [
        next(file.sha256 for file in each.files if file.path == "model.safetensors")
        for each in (first, second)
    ]
    assert len(set(weights)) == 2


def test_a_cut_grant_of_an_own_instance_goes_on(developer: Developer, protected: Path) -> None:
    from live_cloud import cut

    from triparty.common.transport import CloudClient

    developer.device("phone")
    developer.publish(protected, instances=Instances.of("per-device"))
    developer.device("tablet")
    developer.grant("phone")
    with cut(CloudClient, "publish_artifact", after=True):
        developer.grant("tablet")
    granted = developer.grant("tablet")
    record = developer.home.existing_model("tiny")
    owners = [instance.devices for instance in record.instances]
    assert all(len(devices) == 1 for devices in owners)
    assert len(set(owners)) == 2
    assert granted.version == record.newest_version
