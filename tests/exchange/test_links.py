"""Links from who trained them to every device of the developer, over a live cloud."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from linked_outputs import SPECS, linked
from live_cloud import Developer, LiveCloud, running_cloud

from triparty.common.artifacts import Kind
from triparty.common.errors import CheckpointError, ManifestError, TripartyError
from triparty.common.links.design import LinkDesign
from triparty.common.links.ensemble import Ensemble, Member
from triparty.common.links.folder import LINK_FILE, WEIGHTS_FILE, open_links, save_links
from triparty.common.links.link import Link
from triparty.developer.publish_edge import PublishedEdge, publish_edge
from triparty.device.home import HeldLinks
from triparty.device.pull_edge import check_links


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveCloud]:
    with running_cloud(tmp_path_factory.mktemp("cloud") / "data") as cloud:
        yield cloud


def publish(developer: Developer, folder: Path) -> PublishedEdge:
    return publish_edge(
        developer.home,
        folder,
        kind=Kind.LINK,
        name="tags",
        settings=developer.settings,
        now=developer.now(),
    )


def made() -> Ensemble:
    design = LinkDesign(SPECS["class"], SPECS["tags"])
    rng = np.random.default_rng(0)
    weights = {name: rng.uniform(0.1, 1, shape) for name, shape in design.shapes.items()}
    return Ensemble("tags", SPECS["tags"], (Member("class", Link(design, weights)),), 0.5)


def test_published_links_reach_devices_and_predict_there(
    cloud: LiveCloud, tmp_path: Path
) -> None:
    developer = Developer.new(cloud, tmp_path)
    developer.enroll()
    folder = tmp_path / "made"
    save_links(made(), folder)
    assert publish(developer, folder).version == 1
    device, _ = developer.device("one")
    assert device.pull().taken_links == (HeldLinks("tags", 1),)
    assert device.pull().kept_links == (HeldLinks("tags", 1),)
    assert device._home.links() == [HeldLinks("tags", 1)]
    pulled, outputs = open_links(device._home.links_folder("tags")), linked(20).outputs
    np.testing.assert_array_equal(
        pulled.predict(outputs).outputs, made().predict(outputs).outputs
    )

    weights = (folder / WEIGHTS_FILE).read_bytes()
    (folder / WEIGHTS_FILE).write_bytes(weights[:-4] + b"\x00\x00\xc0\x7f")
    with pytest.raises(CheckpointError, match="finite"):
        publish(developer, folder)
    with pytest.raises(CheckpointError, match="finite"):
        check_links(folder)
    (folder / WEIGHTS_FILE).write_bytes(weights)
    (folder / "notes.json").write_bytes(b"{}")
    with pytest.raises(ManifestError, match="alone"):
        publish(developer, folder)
    (folder / "notes.json").unlink()
    document = (folder / LINK_FILE).read_bytes()
    (folder / LINK_FILE).write_bytes(document.replace(b'"width":4', b'"width":5'))
    with pytest.raises(TripartyError):
        publish(developer, folder)
    assert device.pull().kept_links == (HeldLinks("tags", 1),)
