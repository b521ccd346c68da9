"""What the gateway's page shows, and to whom, over a made status and made events."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fastapi.routing import APIRoute
from made_page import (
    BEGAN,
    CAMERAS,
    PASSWORD,
    MadePage,
    camera,
    gateway_status,
    made_events,
    watch_settings,
)
from made_traces import INTRA, ONLY_P, made_trace
from markupsafe import escape
from pydantic import ValidationError
from visited_page import ORIGIN, Visitor

from triparty.common.errors import RequestError, StateError, UnavailableError
from triparty.device.events.event import KINDS, Event, Wanted
from triparty.device.gate.trace_files import write_trace
from triparty.device.gateway.settings import PageSettings
from triparty.device.gateway.stages import StageCount
from triparty.device.gateway.status import GatewayStatus
from triparty.device.page import formats
from triparty.device.page.app import PARTS, create_app, own_names
from triparty.device.page.asked import MOST
from triparty.device.page.feed import MOST_SAMPLES, SAMPLE_S, Feed
from triparty.device.page.last_events import FRESH_S, LastEvents
from triparty.device.page.live import history, live
from triparty.device.page.password import checker, ensure
from triparty.device.page.spending import spending
from triparty.device.page.timeline import WIDTH, timeline
from triparty.device.page.watched import Watched
from triparty.device.streams.status import State

EVIL = "<img src=x onerror=alert(1)>\"'{{7*7}}"


@pytest.fixture
def made(tmp_path: Path) -> MadePage:
    return MadePage(tmp_path)


@pytest.fixture
def visitor(made: MadePage) -> Visitor:
    known = Visitor(made.app())
    assert known.log_in(PASSWORD).status_code == 303
    return known


# Who may see it.


ROUTES = [
    (method, route.path.replace("{number}", "1").replace("{name}", "yard"))
    for part in PARTS
    for route in part.router.routes
    if isinstance(route, APIRoute)
    for method in sorted(route.methods)
]


def test_nobody_sees_any_route(made: MadePage) -> None:
    stranger = Visitor(made.app())
    assert len(ROUTES) >= 11
    for method, path in ROUTES:
        answer = stranger.request(method, path, headers={"Origin": ORIGIN})
        assert answer.status_code in (401, 303), path
        assert answer.status_code == 401 or "/login" in answer.headers["location"], path
        assert "yard" not in answer.text


def test_a_page_by_another_name_is_refused(visitor: Visitor) -> None:
    for path in ("/", "/api/live", "/clips/clip-1.mp4"):
        assert visitor.get(path, Host="evil.example").status_code == 403


@pytest.mark.parametrize(
    ("more", "ours", "others"),
    [
        ({}, ["localhost", "127.0.0.1", "::1"], ["10.0.0.7", "cams.example"]),
        ({"names": ("Cams.example",)}, ["cams.example"], ["10.0.0.7"]),
        (
            {"host": "0.0.0.0", "insecure_no_tls": True},
            ["10.0.0.7", "localhost"],
            ["cams.example"],
        ),
    ],
)
def test_what_the_page_is_called(
    more: dict[str, Any], ours: list[str], others: list[str]
) -> None:
    names = own_names(PageSettings(**more))
    assert all(names.include(name) for name in ours)
    assert not any(names.include(name) for name in others)


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"host": "0.0.0.0"}, "insecure_no_tls"),
        ({"host": "192.168.1.7", "behind_tls": True}, "insecure_no_tls"),
        ({"certificate": "cert.pem"}, "go together"),
    ],
)
def test_a_network_sees_nothing_in_the_clear_unless_told(
    more: dict[str, Any], says: str
) -> None:
    with pytest.raises(ValidationError, match=says):
        PageSettings(**more)


def test_cookies_are_for_tls_where_there_is_tls() -> None:
    assert PageSettings(certificate=Path("c"), key=Path("k"), host="0.0.0.0").is_secure
    assert PageSettings(behind_tls=True).is_secure
    assert not PageSettings().is_secure


def test_the_first_password_is_told_once(tmp_path: Path) -> None:
    file = tmp_path / "page.password"
    made = ensure(file)
    assert made is not None
    assert made not in file.read_text()
    assert ensure(file) is None
    check = checker(file)
    assert asyncio.run(check(made)) is not None
    assert asyncio.run(check(made + "x")) is None
    file.write_text("nonsense")
    with pytest.raises(StateError):
        ensure(file)


# Text stays text.


def test_names_and_answers_are_text(tmp_path: Path) -> None:
    evil = [Event(1, BEGAN, EVIL, EVIL, "change", EVIL, EVIL, zone=EVIL, label=EVIL, clip=EVIL)]
    made = MadePage(tmp_path, events=evil)
    status = gateway_status(10.0)
    stream = replace(status.cameras[0].stream, name=EVIL, last_error=EVIL, address=EVIL)
    odd = replace(
        status.cameras[0],
        stream=replace(stream, state=State.FAILED),
        answers={EVIL: EVIL},
        whole=EVIL,
    )
    assert status.plan is not None
    plan = replace(
        status.plan,
        active=(EVIL,),
        predicted=(f"{EVIL} again",),
        predictions={f"{EVIL} again": 1},
        confidence={f"{EVIL} again": 0.5},
        failing={EVIL: EVIL},
        sources={f"{EVIL} again": ("<b>",)},
        refused=EVIL,
    )
    filters = [replace(one, name=EVIL, model=EVIL) for one in status.filters]
    made.feed.hear(replace(status, cameras=[odd], refused=EVIL, plan=plan, filters=filters))
    visitor = Visitor(made.app())
    visitor.log_in(PASSWORD)
    for path in ("/", "/fragments/live", "/events", "/events/1", f"/cameras/{EVIL}"):
        page = visitor.get(path)
        assert page.status_code == 200
        assert "&lt;img src=x" in page.text, path
        assert "<img src=x" not in page.text, path
        assert "{{7*7}}" in page.text, path
        assert "<b>" not in page.text, path
    assert visitor.get("/").text.count("from &lt;b&gt;, 50% sure") == 1
    page = visitor.request("GET", "/events", params={"label": EVIL, "camera": EVIL})
    assert "<img src=x" not in page.text
    assert visitor.request("GET", "/events", params={EVIL: "1"}).status_code == 400


# How cameras stand.


def test_rates_are_of_the_last_seconds(made: MadePage) -> None:
    made.hear(30, lambda seconds: gateway_status(seconds))
    shown = live(made.feed.now, made.clock.now)
    assert [one["packets_per_s"] for one in shown["cameras"]] == [25.0] * len(CAMERAS)
    assert shown["packets_per_s"] == 100.0
    now = made.feed.now.status
    assert shown["saved_share"] == pytest.approx(
        1 - now.measured_ms / now.expected_ms, abs=1e-4
    )
    assert shown["budget_share"] == pytest.approx(now.measured_ms / now.granted_ms, rel=0.05)
    assert not shown["is_stale"]


def test_a_gateway_that_is_silent_is_called_so(made: MadePage, visitor: Visitor) -> None:
    shown = live(made.feed.now, made.clock.now + 20)
    assert shown["is_stale"]
    assert shown["age_s"] == 20.0


def test_a_camera_that_comes_has_no_rate_yet(made: MadePage) -> None:
    few = gateway_status(5.0)
    made.feed.hear(replace(few, cameras=few.cameras[:1]))
    made.clock.now += 5
    made.feed.hear(gateway_status(10.0))
    shown = live(made.feed.now, made.clock.now)
    assert shown["cameras"][0]["packets_per_s"] is not None
    feed = Feed(replace(few, cameras=few.cameras[:1]), wall=made.clock)
    made.clock.now += 1
    feed.hear(few)
    assert live(feed.now, made.clock.now)["cameras"][1]["packets_per_s"] == 0.0


def test_a_camera_that_begins_anew_has_no_negative_rate(made: MadePage) -> None:
    made.hear(5, gateway_status)
    status = gateway_status(7.0)
    begun = replace(status.cameras[0], arrived=10)
    made.clock.now += 1
    made.feed.hear(replace(status, cameras=[begun, *status.cameras[1:]]))
    shown = live(made.feed.now, made.clock.now)
    assert 0 < shown["cameras"][0]["packets_per_s"] < 10
    assert shown["packets_per_s"] > 0


# What it takes.


def test_the_whole_cpu_is_told_and_nothing_counts_twice(
    made: MadePage, visitor: Visitor
) -> None:
    made.hear(20, gateway_status)
    shown = visitor.get("/api/live").json()
    decoding = sum(one.cpu_ms for one in gateway_status(1.0).cameras)
    told = shown["cpu_ms_per_s"]
    assert told["decoding"] == pytest.approx(decoding, rel=0.05)
    assert (told["decoding_budget"], told["filters"], told["links"]) == (500.0, 3.0, 0.5)
    assert told["models"] == 48.0, "a stage's time has that of its filters"
    assert told["together"] == pytest.approx(told["decoding"] + 3.0 + 0.5 + 48.0, abs=0.02)
    assert {one["name"]: one["cpu_ms_per_s"] for one in shown["models"]} == {
        "objects": 40.0,
        "plates": 8.0,
        "faces": 0.0,
    }
    page = visitor.get("/").text
    assert f"<dd>{told['together']:.0f}</dd>" in page
    assert '<span class="soft">of 500</span>' in page


def test_what_begins_anew_takes_no_negative_time() -> None:
    before, now = gateway_status(100.0), gateway_status(101.0)
    fewer = [replace(one, cpu_ms=5.0) for one in now.filters]
    stages = {**now.stages, "faces": StageCount(1, cpu_ms=2.0), "plates": StageCount(1)}
    found = spending(replace(now, filters=fewer, stages=stages), before, 1.0)
    assert found is not None
    assert found.filters == 5.0
    assert found.models == {"objects": 38.0, "plates": 0.0, "faces": 2.0}
    assert spending(now, before, 0.0) is None
    assert spending(now, None, 1.0) is None


def test_models_and_links_say_what_the_plan_does(made: MadePage, visitor: Visitor) -> None:
    made.hear(20, gateway_status)
    shown = visitor.get("/api/live").json()
    assert [one["plan"]["state"] for one in shown["models"]] == ["runs", "failing", "predicted"]
    runs, failing, predicted = (one["plan"] for one in shown["models"])
    assert (runs["measured"], runs["sources"], runs["confidence"]) == (4000, [], None)
    assert failing["why"] == "ValueError: broken"
    assert (predicted["predicted"], predicted["sources"]) == (3900, ["objects"])
    assert (predicted["confidence"], predicted["unanswered"]) == (0.87, 100)
    memory, latency = shown["plan"]["budgets"]
    assert (memory["planned"], memory["measured"], memory["budget"]) == (26.0, 26.5, 32.0)
    assert (latency["planned"], latency["measured"], latency["budget"]) == (15.5, 15.25, None)
    page = visitor.get("/").text
    assert "from objects, 87% sure" in page
    assert "Models and links" in page
    status = made.feed.now.status
    assert status.plan is not None
    new = replace(status.plan, costs={"objects": (20.0, 11.0)})
    made.feed.hear(replace(status, plan=new))
    unknown = visitor.get("/api/live").json()["plan"]["budgets"]
    assert [one["measured"] for one in unknown] == [None, None], "one that runs is not known"


def test_without_a_plan_models_say_what_they_take_alone(
    made: MadePage, visitor: Visitor
) -> None:
    made.hear(20, _unplanned)
    shown = visitor.get("/api/live").json()
    assert shown["plan"] is None
    assert [(one["name"], one["cpu_ms_per_s"], one["plan"]) for one in shown["models"]] == [
        ("objects", 40.0, None)
    ]
    page = visitor.get("/").text
    assert '<h2 id="models">Models</h2>' in page
    assert "Frames predicted" not in page
    assert "<dt>links</dt>" not in page


def _unplanned(seconds: float) -> GatewayStatus:
    status = gateway_status(seconds)
    return replace(status, plan=None, stages={"objects": status.stages["objects"]})


def test_the_plots_have_an_hour_and_no_more(made: MadePage) -> None:
    made.hear(2.5 * SAMPLE_S * MOST_SAMPLES / 60, gateway_status)
    count = len(made.feed.samples)
    assert 2 < count <= MOST_SAMPLES
    for _ in range(MOST_SAMPLES + 5):
        made.clock.now += SAMPLE_S
        made.feed.hear(gateway_status(10.0))
    assert len(made.feed.samples) == MOST_SAMPLES
    points = history(made.feed.samples)["points"]
    assert points[-1]["recall"] == {"people": [0.91, 0.84, 0.96]}
    assert points[-1]["saved"] is None, "nothing was to be decoded between them"
    assert points[0]["wall"] < points[-1]["wall"]


def test_what_was_heard_never_changes(made: MadePage) -> None:
    now, samples = made.feed.now, made.feed.samples
    made.hear(60, gateway_status)
    assert (now.wall, now.status.seconds) == (BEGAN, 1.0)
    assert len(samples) == 1
    assert made.feed.now.before is not None
    assert made.feed.now.before.before is None, "no chain of all that ever was"


def test_recall_that_is_not_known_is_no_number(made: MadePage) -> None:
    status = gateway_status(10.0)
    audited = status.audits["people"]
    unknown = replace(audited, recall=replace(audited.recall, share=float("nan")))
    made.clock.now += SAMPLE_S
    made.feed.hear(replace(status, audits={"people": unknown}))
    shown = live(made.feed.now, made.clock.now)
    assert shown["audits"][0]["recall"]["share"] is None
    assert made.feed.samples[-1].recall == {}


def test_the_first_page_and_its_fragment_are_one(made: MadePage, visitor: Visitor) -> None:
    made.hear(20, gateway_status)
    page, fragment = visitor.get("/").text, visitor.get("/fragments/live").text
    assert page.count('id="fresh"') == fragment.count('id="fresh"') == 1
    for name in CAMERAS:
        assert f'data-field="{name}/facts"' in page
        assert f'data-field="{name}/facts"' in fragment
    assert "Connection refused by 10.0.0.2" in page
    assert "91%" in page


def test_live_as_json(visitor: Visitor) -> None:
    document = visitor.get("/api/live").json()
    assert [one["name"] for one in document["cameras"]] == list(CAMERAS)
    assert document["cameras"][0]["last_event"]["camera"] == CAMERAS[0]
    assert visitor.get("/api/history").json() == {"points": []}


def test_cameras_are_shown_while_the_database_is_away(made: MadePage, visitor: Visitor) -> None:
    def away(*args: Any, **more: Any) -> Any:
        raise UnavailableError("the database of events does not answer: gone")

    made.events.list = away  # type: ignore[method-assign]
    made.clock.now += 2 * FRESH_S
    page = visitor.get("/")
    assert page.status_code == 200
    assert "does not answer" in page.text
    assert visitor.get("/events").status_code == 503
    assert visitor.get("/api/events").json()["type"].endswith("unavailable")


def test_the_last_event_of_each_camera_is_found_by_few_questions(made: MadePage) -> None:
    last = LastEvents(made.events, clock_s=made.clock)
    newest = {
        name: max(e.id for e in made.events.events if e.camera == name) for name in CAMERAS
    }

    def found() -> dict[str, int | None]:
        return {name: event and event.id for name, event in last.of(CAMERAS).items()}

    assert found() == newest
    made.events.asked.clear()
    assert found() == newest
    assert not made.events.asked, "a second old is new enough"
    made.clock.now += FRESH_S
    made.events.events.append(replace(made.events.events[-1], id=999, camera="yard"))
    assert found() == {**newest, "yard": 999}
    assert len(made.events.asked) == 1
    assert last.of(("nobody",)) == {"nobody": None}


# Events.


@pytest.mark.parametrize(
    ("query", "wanted"),
    [
        ({}, Wanted()),
        (
            {"camera": ["yard", "door"], "kind": ["enter"]},
            Wanted(cameras=("yard", "door"), kinds=("enter",)),
        ),
        ({"camera": "", "since": "", "label": "", "before": ""}, Wanted()),
        (
            {"zone": "gate", "task": "people", "label": "person"},
            Wanted(zones=("gate",), tasks=("people",), labels=("person",)),
        ),
        (
            {"since": "1790000000", "until": "1790000900.5"},
            Wanted(since=1790000000.0, until=1790000900.5),
        ),
        ({"since": "2026-09-21T14:00:00+00:00"}, Wanted(since=1789999200.0)),
        ({"before": "12", "after": "3"}, Wanted(before_id=12, after_id=3)),
    ],
)
def test_filters_are_asked_of_the_store(
    made: MadePage, visitor: Visitor, query: dict[str, Any], wanted: Wanted
) -> None:
    made.events.asked.clear()
    answer = visitor.request("GET", "/api/events", params=query)
    assert answer.status_code == 200
    assert made.events.asked == [wanted]
    expected = [event.id for event in made.events.list(wanted, limit=50)]
    assert [event["id"] for event in answer.json()["events"]] == expected


@pytest.mark.parametrize(
    "query",
    [
        {"kind": "burglary"},
        {"since": "yesterday"},
        {"since": "nan"},
        {"since": "-1"},
        {"until": "1e300"},
        {"before": "-1"},
        {"before": "1;drop table events"},
        {"before": "9" * 30},
        {"after": ["1", "2"]},
        {"limit": "many"},
        {"colour": "red"},
        {"camera": ["x"] * 101},
        {"camera": "x" * 1000},
        {"label": "a\0b"},
    ],
)
def test_filters_that_cannot_be_are_refused(visitor: Visitor, query: dict[str, Any]) -> None:
    for path in ("/api/events", "/events"):
        answer = visitor.request("GET", path, params=query)
        assert answer.status_code == RequestError.status, path
    assert next(iter(query)) in answer.text


def test_answers_are_bounded(made: MadePage, visitor: Visitor) -> None:
    made.events.events = made_events(2 * MOST)
    got = visitor.request("GET", "/api/events", params={"limit": "100000"}).json()["events"]
    assert len(got) == MOST


def test_older_events_are_a_page_further(visitor: Visitor) -> None:
    page = visitor.request("GET", "/events", params={"kind": list(KINDS)}).text
    link = page.split('href="/events?', 1)[1].split('"', 1)[0].replace("&amp;", "&")
    assert link.count("kind=") == len(KINDS)
    older = visitor.get(f"/events?{link}").text
    assert '/events/10"' in older
    assert '/events/11"' not in older
    assert "Older" not in older


def test_one_event_has_neighbours(visitor: Visitor) -> None:
    page = visitor.get("/events/30").text
    assert 'href="/events/26"' in page
    assert 'href="/events/34"' in page
    assert visitor.get("/api/events/30").json()["id"] == 30
    for number in ("61", "-1", "0", "9" * 25):
        assert visitor.get(f"/events/{number}").status_code == 404
    assert visitor.get("/events/one").status_code == 422


def test_a_page_without_events_says_so(made: MadePage) -> None:
    async def check(password: str) -> str | None:
        return "operator"

    assert made.settings.page is not None
    app = create_app(Watched(made.feed, lambda: made.settings), made.settings.page, check)
    visitor = Visitor(app)
    visitor.log_in("any")
    assert visitor.get("/").status_code == 200
    assert "No events are kept" in visitor.get("/events").text
    assert visitor.get("/api/events").status_code == 404
    assert visitor.get("/cameras/yard").status_code == 200


def test_events_lie_where_they_happened() -> None:
    events = made_events(8)
    line = timeline(events, since=BEGAN - 90, until=BEGAN + 9 * 90)
    assert line is not None
    assert [lane.camera for lane in line.lanes] == sorted(CAMERAS)
    places = {mark.event.id: mark.place for lane in line.lanes for mark in lane.marks}
    assert places == {
        event.id: pytest.approx(WIDTH * (number + 1) / 10, abs=0.01)
        for number, event in enumerate(events)
    }
    alone = timeline(events[:1])
    assert alone is not None
    assert alone.until > alone.since
    assert timeline([]) is None


# Files.


@pytest.fixture
def files(made: MadePage) -> Path:
    folder = made.settings.folder
    (folder / "clips").mkdir()
    (folder / "snapshots").mkdir()
    (folder / "clips" / "clip-1.mp4").write_bytes(bytes(range(256)) * 4)
    (folder / "clips" / ".clip-2.mp4.part").write_bytes(b"half")
    (folder / "clips" / "notes.txt").write_bytes(b"a secret")
    (folder / "snapshots" / "clip-1.jpg").write_bytes(b"\xff\xd8picture")
    (folder / "secret.mp4").write_bytes(b"a secret")
    (folder / "clips" / "link.mp4").symlink_to(folder / "secret.mp4")
    (folder / "clips" / "folder.mp4").mkdir()
    return folder


def test_a_clip_and_its_ranges(visitor: Visitor, files: Path) -> None:
    whole = visitor.get("/clips/clip-1.mp4")
    assert whole.status_code == 200
    assert whole.headers["content-type"] == "video/mp4"
    assert whole.headers["accept-ranges"] == "bytes"
    assert len(whole.content) == 1024
    part = visitor.get("/clips/clip-1.mp4", Range="bytes=10-19")
    assert part.status_code == 206
    assert part.headers["content-range"] == "bytes 10-19/1024"
    assert part.content == bytes(range(10, 20))
    assert visitor.get("/clips/clip-1.mp4", Range="bytes=5000-").status_code == 416
    picture = visitor.get("/snapshots/clip-1.jpg")
    assert picture.headers["content-type"] == "image/jpeg"
    for answer in (whole, part, picture):
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    "name",
    [
        "nothing.mp4",
        "notes.txt",
        ".clip-2.mp4.part",
        "link.mp4",
        "folder.mp4",
        "..%2Fsecret.mp4",
        "%2E%2E%2Fsecret.mp4",
        "..%5Csecret.mp4",
        "....//secret.mp4",
        "../secret.mp4",
        "%2Fetc%2Fpasswd",
        "clip-1.mp4%00.mp4",
        "x" * 300 + ".mp4",
        "clip-1.jpg",
    ],
)
def test_no_other_file_is_shown(visitor: Visitor, files: Path, name: str) -> None:
    answer = visitor.get(f"/clips/{name}")
    assert answer.status_code == 404
    assert b"secret." not in answer.content
    assert b"a secret" not in answer.content


def test_a_clip_that_is_gone_is_not_offered(visitor: Visitor, files: Path) -> None:
    assert "<video" in visitor.get("/events/1").text
    gone = visitor.get("/events/6").text
    assert "<video" not in gone
    assert "any more" in gone


# Words.


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (True, "yes"),
        (False, "no"),
        (3, "3"),
        (0.12345, "0.123"),
        ([1, 2], "1, 2"),
        ([], "nothing"),
    ],
)
def test_answers_in_words(value: Any, text: str) -> None:
    assert formats.answer(value) == text


def test_every_kind_has_a_headline() -> None:
    for kind in KINDS:
        event = Event(1, BEGAN, "yard", "people", kind, 0, 1, label="person", zone="gate")
        assert "gate" in formats.headline(event)


@pytest.mark.parametrize(
    ("share", "text"),
    [(None, "-"), (float("nan"), "-"), (0, "0%"), (0.05, "5.0%"), (0.5, "50%")],
)
def test_shares_in_percent(share: float | None, text: str) -> None:
    assert formats.percent(share) == text


# Advice.


def test_advice_without_a_trace(made: MadePage, visitor: Visitor) -> None:
    status = gateway_status(10.0)
    late = camera("yard", 0, 10.0, overdue=True, look_age_s=77.0)
    made.feed.hear(replace(status, cameras=[late, *status.cameras[1:]]))
    lines = visitor.get("/api/advice/yard").json()["advice"]
    assert "77 s" in lines[0]
    assert "traces" in lines[-1]
    assert "intra refresh" in visitor.get("/api/advice/roof").json()["advice"][0]
    assert visitor.get("/api/advice/nobody").status_code == 404


def test_advice_by_the_newest_trace(made: MadePage) -> None:
    app = made.app()
    made.settings = watch_settings(
        made.settings.folder, results={"traces": "traces", "database": "results.db"}
    )
    folder = made.settings.folder / "traces" / "yard"
    runs = {"20260101T000000.000-0": INTRA, "20260102T000000.000-1": ONLY_P}
    for name, group in runs.items():
        (folder / name).mkdir(parents=True)
        write_trace(made_trace(group), folder / name / "00000000.npz")
    visitor = Visitor(app)
    visitor.log_in(PASSWORD)
    document = visitor.get("/api/advice/yard").json()
    assert document["found"]["group_frames"] == [6, 6]
    assert "GOP" in " ".join(document["advice"])
    assert "GOP" in visitor.get("/cameras/yard").text
    (folder / name / "00000001.npz").write_bytes(b"damaged")
    assert visitor.get("/api/advice/yard").json()["found"] is None


# Questions.


def test_a_question_is_answered_with_evidence(made: MadePage, visitor: Visitor) -> None:
    document = visitor.send(
        "POST", "/api/ask", {"question": "Was a person in the yard yesterday?"}
    ).json()
    expected = made.ask("Was a person in the yard yesterday?")
    assert document["text"] == expected.text
    assert [event["id"] for event in document["evidence"]] == [e.id for e in expected.evidence]
    form = {"csrf": visitor.word(), "question": "Was a person in the yard yesterday?"}
    page = visitor.post("/ask", form)
    assert page.status_code == 200
    assert str(escape(expected.text)) in page.text
    assert all(f"/events/{event.id}" in page.text for event in expected.evidence[:50])
    assert "Nothing: words were compared on this device" in page.text


def test_what_was_sent_is_shown(made: MadePage, visitor: Visitor) -> None:
    made.asks_here = False
    form = {"csrf": visitor.word(), "question": "Was a person in the yard yesterday?"}
    page = visitor.post("/ask", form).text
    sent = made.ask(form["question"]).sent
    assert sent.texts
    assert all(f"<q>{text}</q>" in page for text in sent.texts)
    assert "Nothing: words" not in page


def test_a_question_that_is_not_understood_says_why(visitor: Visitor) -> None:
    form = {"csrf": visitor.word(), "question": "Was anybody in the sauna yesterday?"}
    page = visitor.post("/ask", form)
    assert page.status_code == 422
    assert "sauna" in page.text
    odd = visitor.post("/ask", {**form, "question": f"Was {EVIL} in the yard?"})
    assert "<img src=x" not in odd.text
    assert 'role="alert"' in page.text
    assert visitor.post("/ask", {**form, "question": ""}).status_code == 400
    assert visitor.post("/ask", {**form, "question": "x" * 5000}).status_code == 400
    for document in ([], {"question": 1}, {}, "text"):
        assert visitor.send("POST", "/api/ask", document).status_code == 400


def test_other_pages_ask_nothing(made: MadePage, visitor: Visitor) -> None:
    made.events.asked.clear()
    form = {"question": "Was anybody in the yard?"}
    assert visitor.post("/ask", form).status_code == 403
    evil = visitor.post("/ask", {**form, "csrf": visitor.word()}, Origin="https://evil.example")
    assert evil.status_code == 403
    plain = visitor.request("POST", "/api/ask", json=form, headers={"Origin": ORIGIN})
    assert plain.status_code == 403
