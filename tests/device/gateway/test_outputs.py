"""Everything that a gateway tells, opened from its file and driven by its loop."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from headless import until
from mosquitto_broker import free_port
from video_encodings import Encodings
from watched import Witness
from webhook_receiver import Receiver

from triparty.common.errors import SettingsError
from triparty.device.events.event import Wanted
from triparty.device.gate.policies import make
from triparty.device.gate.traces import Task
from triparty.device.gateway.clock import VirtualClock
from triparty.device.gateway.frames import StreamFrame
from triparty.device.gateway.gateway import Gateway
from triparty.device.gateway.metrics import MetricsServer
from triparty.device.gateway.outputs import make_outputs, open_events, site_of
from triparty.device.gateway.settings import WatchSettings
from triparty.device.gateway.stages import Seen
from triparty.device.gateway.status import document, line

CONFIG = """
[gate]
policy = "round_robin"
budget_ms = 100
audit_share = 0
[[cameras]]
name = "yard"
url = "{film}"
tasks = ["late"]
zones = [{{ name = "gate", polygon = [[0, 0], [1, 0], [1, 1]] }}]
[[models]]
name = "model"
python = "m:f"
[[tasks]]
name = "late"
model = "model"
hold_s = 0
looks = 1
[[tasks]]
name = "where"
model = "model"
measure = "boxes"
[results]
database = "kept/r.db"
[mqtt]
host = "127.0.0.1"
port = {closed}
[[webhooks]]
name = "alarm"
url = "http://127.0.0.1:{port}/"
secret_file = "key"
allow = ["127.0.0.1"]
"""
TASKS = [Task("late", "model", "presence"), Task("where", "model", "boxes")]


def settings_in(folder: Path, film: Path, port: int) -> WatchSettings:
    (folder / "key").write_text("a key\n")
    text = CONFIG.format(film=film, port=port, closed=free_port())
    return WatchSettings.parse(text, folder / "watch.toml")


def watched(settings: WatchSettings) -> Gateway:
    def late(frame: StreamFrame) -> Seen:
        return float(frame.time > 1.0)

    return Gateway(
        settings,
        policy=make("round_robin"),
        leftover="scan",
        stages=[Witness(say=late)],
        tasks=TASKS,
        labels={},
        outputs=make_outputs(settings),
        clock=VirtualClock(),
    )


def test_an_event_is_kept_and_sent_while_a_broker_is_away(
    encodings: Encodings, tmp_path: Path
) -> None:
    receiver = Receiver()
    settings = settings_in(tmp_path, encodings.path("h264-baseline"), receiver.port)
    running = watched(settings)
    server = MetricsServer(lambda: running.status, host="127.0.0.1", port=0)
    try:
        running.run()
        until(lambda: receiver.got)
        until(lambda: all(one.sent or one.failures for one in running._status().outlets))
        running.status = running._status()
        shown = httpx.get(f"http://127.0.0.1:{server.port}/metrics").text
    finally:
        server.stop()
        assert running.close()
        receiver.close()
    with_file = open_events(settings)
    (event,) = with_file.list(Wanted())
    assert (event.task, event.kind, event.measured) == ("late", "enter", True)
    assert with_file.answers_at(1e12) == {"yard": {"late": True}}
    with_file.close()
    ((headers, body),) = receiver.got
    assert headers["X-Triparty-Delivery"] == f"alarm-{event.id}"
    assert json.loads(body)["camera"] == "yard"
    told: dict[str, Any] = {one["kind"]: one for one in document(running.status)["outlets"]}
    assert told["webhook"]["sent"] == 1
    assert (told["mqtt"]["well"], told["mqtt"]["waiting"]) == (False, 1)
    assert document(running.status)["store"]["events"] == 1
    assert "no connection, 1 waiting" in line(running.status)
    assert 'outlet_sent_total{kind="webhook",outlet="alarm"} 1.0' in shown
    assert 'outlet_well{kind="mqtt",' in shown
    assert "triparty_device_store_events_total 1.0" in shown
    assert (tmp_path / "kept" / "r.db").stat().st_mode & 0o77 == 0


def test_a_database_in_trouble_is_told(encodings: Encodings, tmp_path: Path) -> None:
    settings = settings_in(tmp_path, encodings.path("h264-baseline"), 9)
    running = watched(settings)
    store = running._outputs.store
    assert store is not None
    with store.engine.connect() as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
        connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")
    try:
        for number in range(400):
            long = {"type": "event", "camera": "yard", "wall": 1.0, "time": 1.0, "task": "late"}
            running._recorder._writer.put(
                {**long, "kind": "enter", "before": "x" * 900, "after": number}
            )
        until(lambda: store.status.waiting > 100)
        status = running._status()
        assert document(status)["store"]["waiting"] > 100
        assert "events wait for the database" in line(status)
        assert "full" in line(status)
    finally:
        running.close()


def test_what_is_told_of_is_what_makes_events(encodings: Encodings, tmp_path: Path) -> None:
    settings = settings_in(tmp_path, encodings.path("h264-baseline"), 9)
    site = site_of(settings, TASKS, {"model": ("person",)})
    assert site.cameras == ("yard",)
    assert [point.name for point in site.points] == ["late", "late@gate"]
    assert site.points[0].labels == ("person",)


@pytest.mark.parametrize(
    ("reason", "old", "new"),
    [
        ("need .results. database", 'database = "kept/r.db"', ""),
        ("cannot read", '"key"', '"absent"'),
        ("is empty", '"key"', '"nothing"'),
        ("secret_file or secret_env", 'secret_file = "key"', ""),
        ("expected the path", '"kept/r.db"', '"mysql://a/b"'),
        ("unknown task 'cats'", 'name = "alarm"', 'name = "alarm"\ntasks = ["cats"]'),
        ("url", '"http://127', '"ftp://127'),
        ("allow", '"127.0.0.1"]', '"localhost"]'),
        ("password without a user", "[mqtt]", '[mqtt]\npassword_env = "X"'),
    ],
)
def test_what_cannot_be_sent_is_refused(
    reason: str, old: str, new: str, tmp_path: Path
) -> None:
    (tmp_path / "key").write_text("a key")
    (tmp_path / "nothing").write_text("\n")
    text = CONFIG.format(film="a.mp4", port=1, closed=1)
    assert old in text
    with pytest.raises(SettingsError, match=reason):
        make_outputs(WatchSettings.parse(text.replace(old, new), tmp_path / "watch.toml"))
