"""The cloud is killed at its durable steps while a developer publishes and a device pulls.

Whatever was acknowledged is there after the restart, nothing else is half-visible, and doing
the same again completes.
"""

from __future__ import annotations

import hashlib
import json
import random
import shutil
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from cloud_storage import CloudStorage, cloud_storage, verified_blobs
from exchanges import write_protected
from live_cloud import Developer, LiveCloud
from mortal_cloud import MortalCloud, Witness, witnessed

from triparty.common import blob_transfer
from triparty.common.access import Access
from triparty.common.artifacts import Kind, Manifest, verify_folder
from triparty.common.errors import CheckpointError, TransportError
from triparty.common.latest import Latest
from triparty.common.signing import from_base64url
from triparty.developer.home import Home
from triparty.developer.settings import DeveloperSettings
from triparty.device.client import Device

PIECE_BYTES = 1500  # a bundle goes up in two
STORAGES = (
    "sqlite+disk",
    pytest.param("postgresql+disk", marks=pytest.mark.slow),
    pytest.param("sqlite+s3", marks=pytest.mark.slow),
)


@dataclass
class Stage:
    """One developer with a device and two things to publish, in a folder of their own."""

    folder: Path
    cloud: MortalCloud
    storage: CloudStorage

    @property
    def data(self) -> Path:
        return self.folder / "cloud"

    @property
    def device(self) -> Device:
        return Device(self.folder / "phone")

    def developer(self) -> Developer:
        live = LiveCloud(self.cloud.url, None, "")
        home = Home(self.folder / "developer")
        return Developer(live, home, self.folder, DeveloperSettings())

    def leave(self) -> None:
        """Removes everything; the cloud does not run."""
        self.storage.drop(self.data)
        shutil.rmtree(self.folder)

    def act(self) -> None:
        """Upload, publish, latest, grant; the next version of it; pull; use."""
        developer = self.developer()
        developer.publish(self.folder / "out1")
        developer.grant("phone")
        developer.publish(self.folder / "out2")
        self.device.pull()
        access = Access.load(self.folder / "phone", role="device")
        # A folder is laid out for the engine, which then finds no model in it.
        with access.client() as client, pytest.raises(CheckpointError, match="model_type"):
            client.open_session("tiny")


@pytest.fixture(scope="module", params=STORAGES)
def storage(request: pytest.FixtureRequest) -> Iterator[CloudStorage]:
    with cloud_storage(request.param, request) as storage:
        yield storage


@pytest.fixture(scope="module")
def cloud(
    tmp_path_factory: pytest.TempPathFactory, storage: CloudStorage
) -> Iterator[MortalCloud]:
    with MortalCloud(tmp_path_factory.mktemp("log") / "log") as cloud:
        yield cloud


@pytest.fixture(scope="module")
def enrolled(
    tmp_path_factory: pytest.TempPathFactory, cloud: MortalCloud, storage: CloudStorage
) -> Stage:
    """A stage on which nothing happened yet; the cloud does not run."""
    stage = Stage(tmp_path_factory.mktemp("enrolled"), cloud, storage)
    operator = storage.new_cloud(stage.data)
    cloud.start(stage.data)
    developer = Developer.new(LiveCloud(cloud.url, None, operator), stage.folder)
    developer.enroll()
    Device(stage.folder / "phone").enroll(developer.invite("phone"), name="a phone")
    cloud.stop()
    for number in (1, 2):
        out = write_protected(stage.folder / f"out{number}", epoch=1)
        (out / "model" / "config.json").write_text(json.dumps({"number": number}))
    return stage


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blob_transfer, "PIECE_BYTES", PIECE_BYTES)


def staged(enrolled: Stage, folder: Path) -> Stage:
    shutil.copytree(enrolled.folder, folder)
    enrolled.storage.part(folder / "cloud")
    return Stage(folder, enrolled.cloud, enrolled.storage)


def check_acknowledged(stage: Stage, witness: Witness) -> None:
    """Whatever a success was answered to is there."""
    developer = stage.developer()
    with developer.client() as client:
        listed = {signed.payload for signed in client.artifacts()}
        sent = [request for request, _ in witness.acknowledged]
        for request, status in witness.acknowledged:
            path = request.url.path
            if path.startswith("/v1/blobs/") and request.method in ("PUT", "HEAD"):
                assert status in (200, 201)
                assert client.connection.request("GET", path).body
            if (request.method, path) == ("POST", "/v1/artifacts"):
                assert from_base64url(json.loads(request.content)["manifest"]) in listed
        statements = [
            Latest.from_bytes(from_base64url(json.loads(request.content)["latest"]))
            for request in sent
            if (request.method, request.url.path) == ("PUT", "/v1/latest")
        ]
    if statements:
        shown = developer.latest()
        last = max(statements, key=lambda statement: statement.sequence)
        assert shown.sequence >= last.sequence
        for name, version in last.versions.items():
            assert shown.versions[name] >= version


def check_whole(stage: Stage) -> None:
    """Whatever can be seen is whole."""
    developer = stage.developer()
    with developer.client() as client:
        manifests = [Manifest.from_bytes(signed.payload) for signed in client.artifacts()]
        for manifest in manifests:
            for file in manifest.files:
                body = client.connection.request("GET", f"/v1/blobs/{file.sha256}").body
                assert hashlib.sha256(body).hexdigest() == file.sha256
    visible = {(manifest.kind, manifest.name, manifest.version) for manifest in manifests}
    for name, version in developer.latest().versions.items():
        kind, _, model = name.partition("/")
        granted = any(manifest.kind is Kind.BUNDLE for manifest in manifests)
        assert (Kind(kind), model, version) in visible or (kind == "bundle" and not granted)
    blobs = verified_blobs(stage.data)
    for blob in blobs.listed():
        content = b"".join(blobs.read(blob.key, 0, blob.size))
        assert hashlib.sha256(content).hexdigest() == blob.key.sha256
    models = [manifest for manifest in manifests if manifest.kind is Kind.MODEL]
    for folder in (stage.data / "models").glob("*/*/[!.]*"):
        (manifest,) = (one for one in models if str(one.version) == folder.name)
        verify_folder(manifest, folder)


def check_killed(stage: Stage, witness: Witness) -> None:
    """Everything that holds after a cloud was killed; ends with it started again."""
    stage.cloud.start(stage.data)
    seen = list(witness.acknowledged)
    check_acknowledged(stage, witness)
    check_whole(stage)
    before = stage.developer().versions()
    stage.act()
    witness.acknowledged[:] = [*seen, *witness.acknowledged]
    check_acknowledged(stage, witness)
    check_whole(stage)
    after = stage.developer().versions()
    assert after[-len(before) :] == before or not before
    assert after == sorted(after, reverse=True)
    assert [held.version for held in stage.device.models()] == [after[0]]
    assert not list((stage.data / "models").glob("*/*/.*")), "left over"


def steps_of(stage: Stage) -> list[str]:
    """The durable steps of an undisturbed run."""
    stage.cloud.start(stage.data)
    with witnessed():
        stage.act()
    steps = stage.cloud.stop()
    assert steps is not None
    return steps


def killed_at(stage: Stage, step: int) -> bool:
    """Runs until the cloud reaches its step, and checks; False if it did not get there."""
    with witnessed() as witness:
        stage.cloud.start(stage.data, step=step)
        with suppress(TransportError):
            stage.act()
        if stage.cloud.stop() is not None:
            return False
        check_killed(stage, witness)
        stage.cloud.stop()
    stage.leave()
    return True


def test_each_kind_of_step_is_met(enrolled: Stage, tmp_path: Path) -> None:
    steps = steps_of(staged(enrolled, tmp_path / "stage"))
    kinds = {step.partition(" ")[2] for step in steps}
    of_blobs = {"put_object"} if enrolled.storage.bucket else {"replace", "link"}
    assert kinds >= {"fsync", "rename", "mkdir", "commit", *of_blobs}


def test_killed_at_some_steps(enrolled: Stage, tmp_path: Path) -> None:
    """One step of each kind, and with one of the storages a few of all."""
    steps = steps_of(staged(enrolled, tmp_path / "undisturbed"))
    is_plain = enrolled.storage.bucket is None and enrolled.storage.postgres is None
    kinds = [step.partition(" ")[2] for step in steps]
    first = {kind: number for number, kind in reversed(list(enumerate(kinds, 1)))}
    chosen = sorted({*first.values(), *(range(7, len(steps), 17) if is_plain else ())})
    for step in chosen:
        # A busy machine writes more at once, and so a run may end before its last steps.
        runs = (staged(enrolled, tmp_path / f"{step}-{run}") for run in range(3))
        assert any(killed_at(stage, step) for stage in runs), steps[step - 1]


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_killed_at_every_step(enrolled: Stage, tmp_path: Path) -> None:
    step = 1
    while killed_at(staged(enrolled, tmp_path / str(step)), step):
        step += 1
    assert step > 50


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_killed_at_any_moment(enrolled: Stage, tmp_path: Path) -> None:
    """Within the steps too: in the middle of what the database or the kernel does."""
    rng = random.Random(20260102)
    kills = 0
    for number in range(120):
        stage = staged(enrolled, tmp_path / str(number))
        with witnessed() as witness:
            stage.cloud.start(stage.data)
            killer = threading.Timer(rng.uniform(0, 0.4), stage.cloud.kill)
            killer.start()
            try:
                stage.act()
            except TransportError:
                kills += 1
            killer.join()
            check_killed(stage, witness)
            stage.cloud.stop()
        stage.leave()
    assert kills > 30
