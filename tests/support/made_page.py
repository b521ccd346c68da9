"""A gateway's page over a made status and made events; no camera and no loop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from fastapi import FastAPI
from visited_page import Clock

from triparty.common.pages.sessions import Sessions
from triparty.common.pages.throttle import LoginThrottle
from triparty.device.ask.ask import Answer, Resolver, ask
from triparty.device.ask.lexical import Lexical
from triparty.device.ask.places import Site, Task
from triparty.device.events.event import Event, Wanted
from triparty.device.gate.recall import Estimate
from triparty.device.gateway.audit import Audited
from triparty.device.gateway.editing import Editor
from triparty.device.gateway.planning import LINKS
from triparty.device.gateway.settings import WatchSettings
from triparty.device.gateway.stages import StageCount
from triparty.device.gateway.status import (
    CameraStatus,
    FilterStatus,
    GatewayStatus,
    PlanStatus,
)
from triparty.device.page.app import create_app
from triparty.device.page.feed import Feed
from triparty.device.page.watched import Watched
from triparty.device.streams.status import State, Status

PASSWORD = "correct horse battery"
BEGAN = 1_790_000_000.0
CAMERAS = ("yard", "door", "hall", "roof")
CONFIG = """\
# what the owner wrote
[gate]
budget_ms = 20

[[cameras]]
name = "yard"
url = "rtsps://viewer:s3cret@10.0.0.7/stream"

[[cameras.zones]]
name = "gate"
polygon = [[0.1, 0.1], [0.5, 0.1], [0.5, 0.5]]

[[cameras]]
name = "door"
url = "door.mp4"

[[cameras]]
name = "hall"
url = "hall.mp4"

[[cameras]]
name = "roof"
url = "roof.mp4"

[[models]]
name = "objects"
python = "json:loads"

[[tasks]]
name = "people"
model = "objects"
measure = "count"

[results]
database = "results.db"
clips = "clips"
snapshots = "snapshots"

[page]
port = 0
"""


def camera(name: str, place: int, seconds: float, **more: Any) -> CameraStatus:
    """A camera that has run for so long."""
    arrived = int(25 * seconds)
    stream = Status(
        name,
        f"rtsps://viewer:***@10.0.0.{place}/stream",
        State.LIVE,
        since=0.0,
        packets=arrived,
        codec="h264",
        width=1280,
        height=720,
    )
    made = CameraStatus(
        stream,
        arrived=arrived,
        decoded=arrived // (5 + place),
        cpu_ms=2.0 * arrived / (5 + place),
        expected_ms=2.0 * arrived,
        looks=arrived // 10,
        events=place,
        look_age_s=0.2 * place,
        answers={"people": place, "anybody": place > 0},
    )
    return replace(made, **more)


def gateway_status(seconds: float = 100.0, **more: Any) -> GatewayStatus:
    """A gateway that has run for so long: cameras of every kind, an audit, a filter, a plan.

    Each second it spends 3 ms on the filter, 40 and 8 on models, 0.5 on links.
    """
    cameras = [camera(name, place, seconds) for place, name in enumerate(CAMERAS)]
    broken = replace(
        cameras[2].stream, state=State.WAITING, last_error="Connection refused by 10.0.0.2"
    )
    cameras[2] = replace(cameras[2], stream=broken)
    cameras[3] = replace(cameras[3], whole="intra refresh", overdue=False)
    audited = Audited(Estimate(0.97, 0.93, 0.99, 40), Estimate(0.91, 0.84, 0.96, 40))
    one = FilterStatus(
        name="anybody",
        model="objects",
        version=None,
        passed=400,
        filtered=600,
        reused=0,
        audited=20,
        wrong=1,
        observed=0,
        failed=0,
        cpu_ms=3.0 * seconds,
        samples=0,
        accuracy=0.95,
        accuracy_low=0.8,
        accuracy_high=0.99,
        target_accuracy=0.9,
        is_drifting=False,
    )
    made = GatewayStatus(
        seconds=seconds,
        cameras=cameras,
        rounds=int(25 * seconds),
        late_rounds=0,
        charged_ms=100 * seconds,
        measured_ms=sum(each.cpu_ms for each in cameras),
        granted_ms=500 * seconds,
        lapsed_ms=0.0,
        budget_cores=0.5,
        frames_dropped=0,
        write_failures=0,
        stages={
            "objects": StageCount(int(10 * seconds), cpu_ms=43.0 * seconds),
            "plates": StageCount(int(10 * seconds), cpu_ms=8.0 * seconds),
            "faces": StageCount(int(10 * seconds)),
            LINKS: StageCount(int(10 * seconds), cpu_ms=0.5 * seconds),
        },
        plan=plan_status(),
        audits={"people": audited},
        audited_groups=40,
        filters=(one,),
        expected_ms=sum(each.expected_ms for each in cameras),
    )
    return replace(made, **more)


def plan_status() -> PlanStatus:
    """A plan that runs two models, of which one fails, and predicts the third."""
    return PlanStatus(
        active=("objects", "plates"),
        predicted=("faces",),
        expected_accuracy=0.93,
        measured={"objects": 4000, "plates": 250},
        predictions={"faces": 3900, "plates": 12},
        confidence={"faces": 0.87, "plates": 0.6},
        failures={"plates": 3},
        failing={"plates": "ValueError: broken"},
        unanswered={"faces": 100},
        profiles=2,
        switches=1,
        costs={"objects": (20.0, 11.0), "plates": (6.5, 4.25), "faces": (3.0, 2.0)},
        sources={"faces": ("objects",), "plates": ("objects",)},
        planned=(26.0, 15.5),
        budget=(32.0, None),
    )


def made_events(count: int = 60) -> list[Event]:
    """Events of all cameras, one every 90 s."""
    kinds = ("enter", "leave", "count", "anomaly", "change")
    return [
        Event(
            id=number + 1,
            wall=BEGAN + 90.0 * number,
            camera=CAMERAS[number % len(CAMERAS)],
            task="people",
            kind=kinds[number % len(kinds)],  # type: ignore[arg-type]
            before=number % 3,
            after=(number + 1) % 3,
            zone="gate" if number % 4 == 0 else None,
            label="person" if number % 2 else None,
            clip=f"clip-{number + 1}.mp4" if number % 5 == 0 else None,
            snapshot=f"clip-{number + 1}.jpg" if number % 5 == 0 else None,
            measured=number % 7 != 0,
            confidence=0.9 if number % 2 else None,
        )
        for number in range(count)
    ]


class MadeEvents:
    """Events in a list."""

    def __init__(self, events: Sequence[Event]) -> None:
        self.events = list(events)
        self.asked: list[Wanted] = []

    def list(self, wanted: Wanted, *, limit: int = 100) -> Sequence[Event]:
        self.asked.append(wanted)
        found = [event for event in self.events if _is_wanted(event, wanted)]
        return sorted(found, key=lambda event: -event.id)[:limit]

    def get(self, event_id: int) -> Event | None:
        return next((event for event in self.events if event.id == event_id), None)

    def answers_at(
        self, wall: float, *, cameras: Sequence[str] = ()
    ) -> dict[str, dict[str, Any]]:
        return {}


def _is_wanted(event: Event, wanted: Wanted) -> bool:
    return all(
        (
            wanted.since is None or event.wall >= wanted.since,
            wanted.until is None or event.wall < wanted.until,
            wanted.before_id is None or event.id < wanted.before_id,
            wanted.after_id is None or event.id > wanted.after_id,
            not wanted.cameras or event.camera in wanted.cameras,
            not wanted.zones or event.zone in wanted.zones,
            not wanted.tasks or event.task in wanted.tasks,
            not wanted.kinds or event.kind in wanted.kinds,
            not wanted.labels or event.label in wanted.labels,
        )
    )


def watch_settings(folder: Path, **more: Any) -> WatchSettings:
    """Settings of the made cameras, with a page."""
    document = {
        "folder": folder,
        "cameras": [{"name": name, "url": f"{name}.mp4"} for name in CAMERAS],
        "models": [{"name": "objects", "python": "m:f"}],
        "tasks": [{"name": "people", "model": "objects", "measure": "count"}],
        "results": {"clips": "clips", "snapshots": "snapshots", "database": "results.db"},
        "page": {"port": 0},
        **more,
    }
    return WatchSettings.model_validate(document)


class MadePage:
    """A page whose gateway says what a test has it say."""

    def __init__(self, folder: Path, *, events: Sequence[Event] | None = None) -> None:
        self.clock = Clock()
        self.clock.now = BEGAN
        self.settings = watch_settings(folder)
        self.feed = Feed(gateway_status(1.0), wall=self.clock)
        self.asks_here = True
        self.events = MadeEvents(made_events() if events is None else events)

    def hear(self, seconds: float, status: Callable[[float], GatewayStatus]) -> None:
        """Lets so many seconds pass, one status a second."""
        for second in range(int(seconds)):
            self.clock.now += 1
            self.feed.hear(status(2.0 + second))

    def editor(self) -> Editor:
        """Of a file that says what the settings say."""
        file = self.settings.folder / "watch.toml"
        if not file.exists():
            file.write_text(CONFIG)
            self.settings = WatchSettings.load(file)

        def ask() -> None:
            self.settings = WatchSettings.load(file)

        return Editor(
            file,
            parse=lambda text: WatchSettings.parse(text, file),
            running=lambda: self.settings,
            ask=ask,
        )

    def ask(self, question: str) -> Answer:
        """Answers on this machine, a day after the first event."""
        site = Site.of(
            ZoneInfo("UTC"),
            dict.fromkeys(CAMERAS, ()),
            ["person"],
            tasks={"people": Task("count", "person")},
        )
        resolver = Resolver(site, Lexical(), is_local=self.asks_here)
        return ask(question, self.events, resolver, BEGAN + 86_400)

    def app(self) -> FastAPI:
        async def check(password: str) -> str | None:
            return "operator" if password == PASSWORD else None

        assert self.settings.page is not None
        return create_app(
            Watched(self.feed, lambda: self.settings, self.events, self.ask, self.editor()),
            self.settings.page,
            check,
            sessions=Sessions(clock_s=self.clock),
            throttle=LoginThrottle(clock_s=self.clock),
        )
