"""Zones and masks: an object is where it stands."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from triparty.common.errors import SettingsError
from triparty.device.filters.results import NothingDetected
from triparty.device.gate.detectors import Detections
from triparty.device.gate.traces import Task
from triparty.device.gateway.answers import answer, confidence
from triparty.device.gateway.questions import Question, folded, questions
from triparty.device.gateway.settings import CameraSettings, WatchSettings
from triparty.device.gateway.stages import Reused

LEFT = [[0, 0], [0.5, 0], [0.5, 1], [0, 1]]
TOP = [[0, 0], [1, 0], [1, 0.5], [0, 0.5]]
PEOPLE = Task("people", "m", "count", (0,))
ANYTHING = Task("anything", "m", "presence")


def seen(*boxes: tuple[float, float, float, float]) -> Detections:
    scores = np.linspace(0.9, 0.5, len(boxes)).astype(np.float32)
    rows = np.array(boxes, np.float32).reshape(-1, 4)
    return Detections(rows, np.zeros(len(boxes), np.int32), scores)


def asked(**camera: Any) -> dict[str, Question]:
    settings = CameraSettings.model_validate({"name": "yard", "url": "x", **camera})
    return {each.name: each for each in questions([PEOPLE, ANYTHING], settings)}


ABOVE_LEFT, ABOVE_RIGHT = (0.0, 0.0, 0.4, 0.4), (0.6, 0.0, 0.9, 0.4)
TALL_LEFT = (0.1, 0.1, 0.3, 0.9)
"""Mostly in the upper half, and stands in the lower one."""


@pytest.mark.parametrize(
    ("boxes", "all_of_it", "left", "top"),
    [
        ((), 0, 0, 0),
        ((ABOVE_LEFT,), 1, 1, 1),
        ((ABOVE_RIGHT,), 1, 0, 1),
        ((TALL_LEFT,), 1, 1, 0),
        ((ABOVE_LEFT, ABOVE_RIGHT, TALL_LEFT), 3, 2, 2),
        (((0.4, 0.5, 0.8, 1.0),), 1, 0, 0),  # more than half of it is to the left
    ],
)
def test_an_object_is_where_it_stands(boxes: Any, all_of_it: int, left: int, top: int) -> None:
    zones = [
        {"name": "left", "polygon": LEFT},
        {"name": "top", "polygon": TOP, "tasks": ["people"]},
    ]
    found = {
        name: answer(each.task, part)
        for name, each in asked(zones=zones).items()
        if (part := each.part(seen(*boxes))) is not None
    }
    assert found == {
        "people": all_of_it,
        "anything": all_of_it > 0,
        "people@left": left,
        "anything@left": left > 0,
        "people@top": top,
    }


def test_what_stands_in_a_mask_is_nowhere() -> None:
    zones = [{"name": "left", "polygon": LEFT}]
    found = asked(zones=zones, masks=[{"polygon": TOP}])
    everything = seen(ABOVE_LEFT, ABOVE_RIGHT, TALL_LEFT)
    for name in ("people", "people@left"):
        part = found[name].part(everything)
        assert isinstance(part, Detections)
        assert part.boxes.tolist() == [pytest.approx(TALL_LEFT)]
        assert confidence(PEOPLE, part) == pytest.approx(0.5)


def test_a_number_is_of_no_place() -> None:
    found = asked(zones=[{"name": "left", "polygon": LEFT}], masks=[{"polygon": TOP}])
    assert found["people"].part(2.0) == 2.0
    assert found["people@left"].part(2.0) is None
    assert found["people@left"].stand_in(Reused(2.0)) is None


def test_what_a_filter_says_is_of_the_place_too() -> None:
    left = asked(zones=[{"name": "left", "polygon": LEFT}])["people@left"]
    reused = left.stand_in(Reused(seen(ABOVE_LEFT, ABOVE_RIGHT)))
    assert isinstance(reused, Reused)
    assert answer(left.task, reused.seen) == 1
    assert left.stand_in(NothingDetected("m")) == NothingDetected("m")


def test_a_change_in_a_zone_is_news_of_its_task() -> None:
    found = list(asked(zones=[{"name": "left", "polygon": LEFT}]).values())
    rewards = {"people": 0.0, "anything": math.nan, "people@left": 1.0, "anything@left": 0.0}
    given = [rewards[each.name] for each in found]
    assert folded([PEOPLE, ANYTHING], found, given) == [1.0, 0.0]
    nothing = folded([PEOPLE, ANYTHING], found, [math.nan] * 4)
    assert all(map(math.isnan, nothing))


CONFIG = """
[[cameras]]
name = "yard"
url = "x.mp4"
tasks = ["people"]
{camera}
[[models]]
name = "m"
python = "a:b"
[[tasks]]
name = "people"
model = "m"
[[tasks]]
name = "cats"
model = "m"
"""


@pytest.mark.parametrize(
    ("reason", "camera"),
    [
        ("two zones are called 'a'", "zones = [{Z}, {Z}]"),
        ("'cats'", "zones = [{name='a', polygon=[[0,0],[1,0],[1,1]], tasks=['cats']}]"),
        ("cross or touch", "zones = [{name='a', polygon=[[0,0],[1,1],[1,0],[0,1]]}]"),
        ("outside", "masks = [{polygon=[[0,0],[2,0],[1,1]]}]"),
        ("3 to", "masks = [{polygon=[[0,0],[1,0]]}]"),
        ("polygn", "masks = [{polygn=[[0,0],[1,0],[1,1]]}]"),
    ],
)
def test_what_cannot_be_is_refused(reason: str, camera: str, tmp_path: Path) -> None:
    file = tmp_path / "w.toml"
    camera = camera.replace("{Z}", "{name='a', polygon=[[0,0],[1,0],[1,1]]}")
    file.write_text(CONFIG.replace("{camera}", camera))
    with pytest.raises(SettingsError, match=reason):
        WatchSettings.load(file)
