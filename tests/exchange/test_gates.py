"""A gate from who trained it to every device of the developer, over a live cloud."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from live_cloud import Developer, LiveCloud, cut, running_cloud
from typer.testing import CliRunner

from triparty.common.artifacts import Kind
from triparty.common.errors import (
    DigestError,
    FileTypeError,
    ManifestError,
    NotFoundError,
    RollbackError,
)
from triparty.common.transport import CloudClient
from triparty.developer.cli import app as developer_commands
from triparty.developer.publish_edge import PublishedEdge, publish_edge
from triparty.device.cli import app as device_commands
from triparty.device.gate.artifact import Gate, GateTask, TrainingFacts
from triparty.device.gate.features import PUBLISHED, FeatureChoice
from triparty.device.gate.predictor import Network, Predictor, random_weights
from triparty.device.home import HeldGate, Home


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveCloud]:
    with running_cloud(tmp_path_factory.mktemp("cloud") / "data") as cloud:
        yield cloud


@pytest.fixture
def developer(cloud: LiveCloud, tmp_path: Path) -> Developer:
    developer = Developer.new(cloud, tmp_path)
    developer.enroll()
    return developer


def write_gate(folder: Path, seed: int = 0) -> Path:
    network = Network("published", FeatureChoice(PUBLISHED, 5, "paper"))
    weights = random_weights(network, rng=np.random.default_rng(seed))
    facts = TrainingFacts(1, 2, 3, "full", seed, 0.5, (0.25,))
    Gate(Predictor(network, weights), (GateTask("people"),), facts).save(folder)
    return folder


def publish(developer: Developer, folder: Path, name: str = "street") -> PublishedEdge:
    return publish_edge(
        developer.home,
        folder,
        kind=Kind.GATE,
        name=name,
        settings=developer.settings,
        now=developer.now(),
    )


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_every_device_of_the_developer_gets_it_and_no_other(
    developer: Developer, cloud: LiveCloud, tmp_path: Path
) -> None:
    published = publish(developer, write_gate(tmp_path / "gate"))
    assert published.version == 1
    for label in ("one", "two"):
        device, _ = developer.device(label)
        pulled = device.pull()
        assert (pulled.taken, pulled.taken_gates) == ((), (HeldGate("street", 1),))
        folder = device._home.gate_folder("street")
        got = bytes_of(folder)
        assert {**bytes_of(tmp_path / "gate"), **got} == got  # and the signed manifest
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        for name in ("gate.json", "gate.safetensors"):
            assert stat.S_IMODE((folder / name).stat().st_mode) == 0o600
        Gate.open(folder)
        again = device.pull("street")
        assert (again.taken_gates, again.kept_gates) == ((), (HeldGate("street", 1),))
    stranger = Developer.new(cloud, tmp_path / "stranger")
    stranger.enroll()
    publish(stranger, tmp_path / "gate", "other")
    device, _ = stranger.device("three")
    assert device.pull().taken_gates == (HeldGate("other", 1),)
    with pytest.raises(NotFoundError):
        device.pull("street")


def test_versions_rise_and_the_newest_is_taken(developer: Developer, tmp_path: Path) -> None:
    device, _ = developer.device("one")
    publish(developer, write_gate(tmp_path / "gate"))
    device.pull()
    second = publish(developer, write_gate(tmp_path / "gate", seed=1))
    assert second.version == 2
    assert developer.latest().versions["gate/street"] == 2
    assert device.pull().taken_gates == (HeldGate("street", 2),)
    assert device._home.gates() == [HeldGate("street", 2)]
    weights = Gate.open(device._home.gate_folder("street")).predictor.weights
    mine = Gate.open(tmp_path / "gate").predictor.weights
    np.testing.assert_array_equal(weights["heads.weight"], mine["heads.weight"])


def test_a_damaged_gate_is_taken_again(developer: Developer, tmp_path: Path) -> None:
    device, _ = developer.device("one")
    publish(developer, write_gate(tmp_path / "gate"))
    device.pull()
    path = device._home.gate_folder("street") / "gate.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    assert device.pull().taken_gates == (HeldGate("street", 1),)
    assert path.read_bytes() == (tmp_path / "gate" / "gate.safetensors").read_bytes()


def test_a_model_and_a_gate_come_with_one_pull(
    developer: Developer, protected: Path, tmp_path: Path
) -> None:
    device, principal = developer.device("one")
    developer.publish(protected)
    developer.grant(principal)
    publish(developer, write_gate(tmp_path / "gate"), "tiny")  # kinds do not share names
    pulled = device.pull()
    assert [model.name for model in pulled.taken] == ["tiny"]
    assert pulled.taken_gates == (HeldGate("tiny", 1),)


@pytest.fixture
def protected(tmp_path: Path) -> Path:
    from exchanges import write_protected

    return write_protected(tmp_path / "out", epoch=1)


@pytest.mark.parametrize("method", ["upload_blob", "publish_artifact", "put_statements"])
@pytest.mark.parametrize("after", [False, True])
def test_publishing_again_after_a_cut_succeeds(
    method: str, after: bool, developer: Developer, tmp_path: Path
) -> None:
    folder = write_gate(tmp_path / "gate")
    with cut(CloudClient, method, after=after):
        publish(developer, folder)
    done = publish(developer, folder)
    assert done.version == developer.versions(Kind.GATE, "street")[0]
    assert developer.latest().versions["gate/street"] == done.version
    device, _ = developer.device("one")
    assert device.pull().taken_gates == (HeldGate("street", done.version),)


def test_a_signed_folder_that_is_no_gate_leaves_the_one_before(
    developer: Developer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    device, _ = developer.device("one")
    publish(developer, write_gate(tmp_path / "gate"))
    device.pull()
    before = bytes_of(device._home.gate_folder("street"))
    (tmp_path / "gate" / "gate.safetensors").write_bytes(b"no tensors")
    publish(developer, tmp_path / "gate")
    with pytest.raises(FileTypeError):
        device.pull()
    assert bytes_of(device._home.gate_folder("street")) == before
    assert not list(device._home.folder.glob("gates/.*"))


def test_an_older_gate_is_not_taken(developer: Developer, tmp_path: Path) -> None:
    device, _ = developer.device("one")
    publish(developer, write_gate(tmp_path / "gate"))
    publish(developer, write_gate(tmp_path / "gate", seed=1))
    device.pull()
    real = CloudClient.artifacts

    def only_old(self: CloudClient, **wanted: object) -> object:
        return real(self, **wanted)[1:]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CloudClient, "artifacts", only_old)
        with pytest.raises(RollbackError):
            device.pull()
    assert device._home.gates() == [HeldGate("street", 2)]


def test_swapped_bytes_are_refused(developer: Developer, tmp_path: Path) -> None:
    device, _ = developer.device("one")
    publish(developer, write_gate(tmp_path / "gate", seed=77))  # nobody else's blob
    blobs = developer.cloud.app.state.settings.blob_folder
    weights = (tmp_path / "gate" / "gate.safetensors").read_bytes()
    (stored,) = [
        path for path in blobs.rglob("*") if path.is_file() and path.read_bytes() == weights
    ]
    stored.write_bytes(weights[:-1] + b"\x01")
    with pytest.raises(DigestError):
        device.pull()
    assert not device._home.gates()


def test_what_is_no_gate_is_not_published(developer: Developer, tmp_path: Path) -> None:
    folder = write_gate(tmp_path / "gate")
    (folder / "extra.json").write_text("{}")
    with pytest.raises(ManifestError, match="alone"):
        publish(developer, folder)
    (folder / "extra.json").rename(folder / "notes.pt")
    with pytest.raises(FileTypeError, match="pickle"):
        publish(developer, folder)
    (folder / "notes.pt").unlink()
    (folder / "gate.json").write_text("{}")
    with pytest.raises(ManifestError, match=r"triparty\.gate"):
        publish(developer, folder)
    assert developer.versions(Kind.GATE, "street") == []


def test_the_commands_say_what_they_did(developer: Developer, tmp_path: Path) -> None:
    folder = write_gate(tmp_path / "street")
    words = ["publish", str(folder), "--home", str(developer.home.folder)]
    done = CliRunner().invoke(developer_commands, words)
    assert done.exit_code == 0, done.output
    assert "published gate street version 1" in done.output
    device, _ = developer.device("one")
    home: Home = device._home
    done = CliRunner().invoke(device_commands, ["pull", "--home", str(home.folder)])
    assert done.exit_code == 0, done.output
    assert "got gate street  version 1" in done.output
