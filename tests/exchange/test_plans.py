"""A plan from its developer to devices: exactly the chosen models come, others go."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from live_cloud import Developer, LiveCloud, running_cloud
from made_links import NUMBER, linear_link, times
from planned import saved_plan

from triparty.common.artifacts import Kind
from triparty.common.edge_models import EdgeModel
from triparty.common.errors import FileTypeError, ManifestError, NotFoundError
from triparty.common.links.ensemble import Ensemble, Member
from triparty.common.links.folder import open_links
from triparty.common.links.planning.costs import Cost
from triparty.common.links.planning.folder import PlanFolder
from triparty.common.links.specs import Vec
from triparty.developer.publish_edge import publish_edge
from triparty.developer.publish_plan import publish_plan
from triparty.device.gateway.plans import make_planner
from triparty.device.gateway.settings import WatchSettings
from triparty.device.gateway.watching import check_settings, make_gateway
from triparty.device.home import HeldPlan

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

WATCH = """
[[cameras]]
name = "hall"
url = {clip}
loop = true
[defaults]
whole = true
looks_per_s = 10
[[models]]
name = "people"
pulled = true
labels = "coco"
[[models]]
name = "faces"
pulled = true
labels = ["face"]
[[tasks]]
name = "anybody"
model = "people"
[plan]
artifact = "yard"
every_frames = 1000
profiled_share = 0.03
latency_ms = {latency_ms}
"""
LINKS = {
    "cars": times("cars", {"people": 2.0}),
    "people": times("people", {"cars": 0.5}),
}


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveCloud]:
    with running_cloud(tmp_path_factory.mktemp("cloud") / "data") as cloud:
        yield cloud


@pytest.fixture
def developer(cloud: LiveCloud, tmp_path: Path) -> Developer:
    developer = Developer.new(cloud, tmp_path)
    developer.enroll()
    return developer


def network(path: Path) -> Path:
    """An ONNX file that adds a number to itself."""
    value = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1]) for name in "xy"
    ]
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Add", ["x", "x"], ["y"])], "twice", value[:1], value[1:]
    )
    opset = onnx.helper.make_opsetid("", 17)
    onnx.save(onnx.helper.make_model(graph, opset_imports=[opset], ir_version=10), str(path))
    return path


def publish(developer: Developer, kind: Kind, folder: Path, name: str) -> int:
    if kind is Kind.PLAN:
        done = publish_plan(
            developer.home, folder, name=name, settings=developer.settings, now=developer.now()
        )
    else:
        done = publish_edge(
            developer.home,
            folder,
            kind=kind,
            name=name,
            settings=developer.settings,
            now=developer.now(),
        )
    return done.version


def publish_members(developer: Developer, tmp_path: Path) -> Path:
    """Two models and their links; returns the folder of a plan that runs `people`."""
    folder = saved_plan(tmp_path, ("people",), LINKS)
    for name in LINKS:
        EdgeModel(NUMBER, Cost(1.0, 1.0)).save(network(tmp_path / "n.onnx"), tmp_path / name)
        assert publish(developer, Kind.MODEL_EDGE, tmp_path / name, name) == 1
        publish(developer, Kind.LINK, folder / "links" / name, name)
    return folder / "plan"


def test_exactly_the_chosen_models_come_and_another_choice_fetches_and_evicts(
    developer: Developer, tmp_path: Path
) -> None:
    plan = publish_members(developer, tmp_path)
    device, _ = developer.device("one")
    assert publish(developer, Kind.PLAN, plan, "yard") == 1
    assert device.pull().taken_plans == (HeldPlan("yard", 1, ("people",)),)
    home = device._home
    assert home.edge_models() == ["people"]
    opened = PlanFolder.open(home.plan_folder("yard"))
    assert opened.models == {"people": 1, "cars": 1}
    assert [open_links(home.links_folder(name)).expected for name in LINKS] == [0.9, 0.9]
    assert EdgeModel.open(home.edge_model_folder("people")).cost.memory_mib == 1.0

    assert device.choose_models("yard", ["cars"]).active == ("cars",)
    assert home.edge_models() == ["cars"]
    assert device.pull().kept_plans == (HeldPlan("yard", 1, ("cars",)),)
    assert home.edge_models() == ["cars"]
    with pytest.raises(NotFoundError, match="names no model 'dogs'"):
        device.choose_models("yard", ["dogs"])
    with pytest.raises(NotFoundError, match="holds no plan 'hall'"):
        device.choose_models("hall", [])

    assert publish(developer, Kind.PLAN, plan, "yard") == 2
    assert device.pull().taken_plans == (HeldPlan("yard", 2, ("people",)),)
    assert home.edge_models() == ["people"]
    (home.edge_model_folder("people") / "model.onnx").write_bytes(b"damaged")
    device.pull()  # what is damaged is brought again
    EdgeModel.open(home.edge_model_folder("people"))
    assert (home.edge_model_folder("people") / "model.onnx").read_bytes() != b"damaged"


def test_a_plan_of_what_is_not_published_or_no_longer_current_is_refused(
    developer: Developer, tmp_path: Path
) -> None:
    folder = saved_plan(tmp_path / "early", ("people",), LINKS)
    with pytest.raises(ManifestError, match="model-edge 'people', which is not published"):
        publish(developer, Kind.PLAN, folder / "plan", "yard")
    plan = publish_members(developer, tmp_path)
    publish(developer, Kind.PLAN, plan, "yard")
    device, _ = developer.device("one")
    device.pull()
    publish(developer, Kind.MODEL_EDGE, tmp_path / "people", "people")
    with pytest.raises(ManifestError, match=r"version 1 of the model-edge 'people', current"):
        device.pull()
    assert device._home.plans() == [HeldPlan("yard", 1, ("people",))]  # it stays usable
    assert device._home.edge_models() == ["people"]
    publish(developer, Kind.PLAN, plan, "yard")
    assert device.pull().taken_plans == (HeldPlan("yard", 2, ("people",)),)


def test_a_signed_folder_that_is_no_model_leaves_the_plan_before(
    developer: Developer, tmp_path: Path
) -> None:
    plan = publish_members(developer, tmp_path)
    publish(developer, Kind.PLAN, plan, "yard")
    device, _ = developer.device("one")
    device.pull()
    (tmp_path / "people" / "model.onnx").write_bytes(b"no network")
    publish(developer, Kind.MODEL_EDGE, tmp_path / "people", "people")
    publish(developer, Kind.PLAN, plan, "yard")
    with pytest.raises(FileTypeError, match="is no ONNX model"):
        device.pull()
    assert device._home.plans() == [HeldPlan("yard", 1, ("people",))]
    assert EdgeModel.open(device._home.edge_model_folder("people")).spec == NUMBER


@pytest.mark.parametrize(
    ("latency_ms", "chosen"), [(1e6, ("faces", "people")), (0.0, ())], ids=["all", "none"]
)
def test_cameras_fetch_all_models_to_choose_anew_and_evict_the_rest(
    latency_ms: float,
    chosen: tuple[str, ...],
    developer: Developer,
    test_data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The plan runs `faces`, which say nothing of people; now all fit, or no model does."""
    people, faces = (Vec("regression", 1, (label,), 0.5) for label in ("person", "face"))
    links = {
        "people": Ensemble(
            "people", people, (Member("faces", linear_link(faces, people, 9.0)),), 0.9
        ),
        "faces": Ensemble(
            "faces", faces, (Member("people", linear_link(people, faces, 0.0)),), 0.9
        ),
    }
    folder = saved_plan(tmp_path, ("faces",), links)
    files = {"people": "FastestDet.onnx", "faces": "version-RFB-320.onnx"}
    for name, file in files.items():
        network = test_data / "models" / "detectors" / file
        EdgeModel(links[name].target, Cost(1.0, 1.0)).save(network, tmp_path / name)
        publish(developer, Kind.MODEL_EDGE, tmp_path / name, name)
        publish(developer, Kind.LINK, folder / "links" / name, name)
    publish(developer, Kind.PLAN, folder / "plan", "yard")
    device, _ = developer.device("one")
    device.pull()
    home = device._home
    assert home.edge_models() == ["faces"]
    monkeypatch.setenv("TRIPARTY_DEVICE_HOME", str(home.folder))
    clip = json.dumps(str(test_data / "clips" / "one-by-one-person-detection.mp4"))
    site = tmp_path / "site"
    site.mkdir()
    (site / "watch.toml").write_text(WATCH.format(clip=clip, latency_ms=latency_ms))
    settings = WatchSettings.load(site / "watch.toml")
    running = make_gateway(settings)
    until = time.monotonic() + 150
    try:
        while (status := running.status.plan) and not status.profiles:
            assert time.monotonic() < until
            running.run(seconds=0.5)
        while home.edge_models() != sorted(chosen):
            assert time.monotonic() < until
            time.sleep(0.05)
    finally:
        assert running.close()
    assert status is not None
    assert (status.refused, sorted(status.active), status.switches) == (None, [*chosen], 1)
    assert status.measured["people"] >= 30, "it was fetched to look"
    (held,) = home.plans()
    assert sorted(held.active) == [*chosen]
    again = make_planner(settings, check_settings(settings))
    assert again is not None
    assert again.active == set(chosen), "after a restart what was chosen runs"
