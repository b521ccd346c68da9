"""A filter from who trained it to every device of the developer, over a live cloud."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from live_cloud import Developer, LiveCloud, running_cloud
from made_inputs import clouds, fitted, write_filter

from triparty.common.artifacts import Kind
from triparty.common.errors import FileTypeError, ManifestError
from triparty.developer.publish_edge import PublishedEdge, publish_edge
from triparty.device.filters import Filter
from triparty.device.home import HeldFilter

pytest.importorskip("torch")
pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveCloud]:
    with running_cloud(tmp_path_factory.mktemp("cloud") / "data") as cloud:
        yield cloud


@pytest.fixture
def developer(cloud: LiveCloud, tmp_path: Path) -> Developer:
    developer = Developer.new(cloud, tmp_path)
    developer.enroll()
    return developer


def publish(developer: Developer, folder: Path) -> PublishedEdge:
    return publish_edge(
        developer.home,
        folder,
        kind=Kind.FILTER,
        name="street",
        settings=developer.settings,
        now=developer.now(),
    )


def test_a_published_filter_reaches_devices_and_filters_there(
    developer: Developer, tmp_path: Path
) -> None:
    assert publish(developer, write_filter(tmp_path / "made")).version == 1
    device, _ = developer.device("one")
    assert device.pull().taken_filters == (HeldFilter("street", 1),)
    assert device.pull().kept_filters == (HeldFilter("street", 1),)
    assert device._home.filters() == [HeldFilter("street", 1)]
    points, _ = clouds(20)
    pulled = Filter.load(device._home.filter_folder("street"))
    assert (pulled.outputs(points) == fitted("skip").outputs(points)).all()


def test_a_signed_folder_that_is_no_filter_leaves_the_one_before(
    developer: Developer, tmp_path: Path
) -> None:
    device, _ = developer.device("one")
    folder = write_filter(tmp_path / "made")
    publish(developer, folder)
    device.pull()
    (folder / "filter.onnx").write_bytes(b"no network")
    publish(developer, folder)
    with pytest.raises(FileTypeError):
        device.pull()
    Filter.load(device._home.filter_folder("street"))
    (folder / "notes.json").write_bytes(b"{}")
    with pytest.raises(ManifestError, match="alone"):
        publish(developer, folder)
