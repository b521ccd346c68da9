"""What a real broker hears, keeps, and forgets."""

from __future__ import annotations

import gc
import json
import os
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from headless import until
from mosquitto_broker import Broker as Mosquitto
from mosquitto_broker import Listener, find_mosquitto, free_port, running_broker

from triparty.cloud.tls import write_certificate
from triparty.device.events import mqtt as module
from triparty.device.events.homeassistant import Topics, configs, slug, state
from triparty.device.events.mqtt import Broker, Mqtt
from triparty.device.events.outlet import Point, Site

TOPICS = Topics("triparty", "home", "homeassistant")
PEOPLE = Point("yard", "people", "count")
AT_DOOR = Point("yard", "anybody", "presence", "front door")
HALL = Point("hall", "people", "count")
SITE = Site(("yard", "hall"), (PEOPLE, AT_DOOR, HALL))
CONFIG = "homeassistant/sensor/home/hall_people_{}/config"


@pytest.fixture(scope="module")
def program() -> str:
    found = find_mosquitto()
    if found is None:
        absent = "mosquitto is not installed (apt-get install mosquitto)"
        if os.environ.get("CI"):
            pytest.fail(absent)
        pytest.skip(absent)
    return found


@pytest.fixture(scope="module")
def mosquitto(program: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mosquitto]:
    folder = tmp_path_factory.mktemp("broker")
    with running_broker(program, folder, "allow_anonymous true") as broker:
        yield broker


@pytest.fixture
def heard(mosquitto: Mosquitto) -> Iterator[Listener]:
    listener = Listener(mosquitto.port)
    yield listener
    for topic in list(listener.retained):
        listener.client.publish(topic, b"", qos=1, retain=True)
    until(lambda: not listener.retained)
    listener.close()


def told(port: int, site: Site = SITE, **broker: Any) -> Mqtt:
    made = Mqtt(Broker("127.0.0.1", port, **broker), TOPICS)
    made.hear_site(site)
    return made


def event(camera: str, task: str, after: object, **more: object) -> dict[str, Any]:
    head = {"type": "event", "camera": camera, "task": task, "wall": 1.0, "time": 1.0}
    return {**head, "kind": "enter", "before": 0, "after": after, **more}


def result(camera: str, *names: str) -> dict[str, Any]:
    return {"type": "result", "camera": camera, "answers": dict.fromkeys(names, 0)}


def camera_is(name: str, said: str) -> dict[str, Any]:
    return {"type": "state", "camera": name, "state": said}


def test_home_assistant_is_told_of_everything(mosquitto: Mosquitto, heard: Listener) -> None:
    mqtt = told(mosquitto.port)
    mqtt.write([camera_is("yard", "live"), result("yard", "people", "anybody@front door")], 0.0)
    mqtt.write([event("yard", "anybody", True, zone="front door")], 0.0)
    mqtt.write([event("yard", "people", 3)], 0.0)
    door = TOPICS.state(AT_DOOR)
    expected = {
        "triparty/home/available": "online",
        "triparty/home/cameras/yard/available": "online",
        "triparty/home/cameras/hall/available": "offline",
        "triparty/home/cameras/yard/people": "3",
        door: "ON",
    }
    until(lambda: expected.items() <= heard.retained.items())
    assert TOPICS.state(HALL) not in heard.retained, "nobody looked there"
    found = configs(TOPICS, SITE)
    assert found.items() <= heard.retained.items()
    config = json.loads(found[TOPICS.config(AT_DOOR)])
    assert TOPICS.config(AT_DOOR).startswith("homeassistant/binary_sensor/home/")
    assert config["state_topic"] == door
    assert {a["topic"] for a in config["availability"]} == {
        "triparty/home/available",
        "triparty/home/cameras/yard/available",
    }
    events = [json.loads(text) for topic, text in heard.messages if topic.endswith("/events")]
    assert [(e["task"], e["after"]) for e in events] == [("anybody", True), ("people", 3)]
    until(lambda: mqtt.status().waiting == 0)
    assert mqtt.status().well
    mqtt.close()
    until(lambda: heard.retained["triparty/home/available"] == "offline")


def test_what_is_gone_is_taken_back(mosquitto: Mosquitto, heard: Listener) -> None:
    mqtt = told(mosquitto.port)
    mqtt.write([camera_is("hall", "live"), result("hall", "people")], 0.0)
    until(lambda: heard.retained.get(TOPICS.state(HALL)) == "0")
    mqtt.hear_site(Site(("yard",), (PEOPLE, AT_DOOR)))
    until(lambda: not [topic for topic in heard.retained if "hall" in topic])
    assert TOPICS.config(PEOPLE) in heard.retained
    mqtt.close()
    mqtt = told(mosquitto.port, Site(("hall",), (HALL,)))  # somebody edited the file meanwhile
    until(lambda: not [topic for topic in heard.retained if "yard" in topic])
    until(lambda: TOPICS.config(HALL) in heard.retained)
    assert mqtt.status().well
    mqtt.close()


def test_a_camera_that_begins_anew_has_nothing_in_view(
    mosquitto: Mosquitto, heard: Listener
) -> None:
    mqtt = told(mosquitto.port)
    mqtt.write([result("yard", "people"), event("yard", "people", 3)], 0.0)
    until(lambda: heard.retained.get(TOPICS.state(PEOPLE)) == "3")
    mqtt.write([camera_is("yard", "removed")], 0.0)
    until(lambda: heard.retained.get(TOPICS.state(PEOPLE)) == "0")
    mqtt.close()


def test_a_broker_that_dies_holds_nobody_up_and_hears_it_all_later(
    program: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_WAITING", 50)
    monkeypatch.setattr(module, "LONGEST_WAIT_S", 1)
    with running_broker(program, tmp_path, "allow_anonymous true") as mosquitto:
        mqtt = told(mosquitto.port)
        until(lambda: mqtt.status().well)
        mosquitto.stop()
        until(lambda: not mqtt.status().well)
        for n in range(200):
            mqtt.write([event("yard", "people", n)], 0.0)
        status = mqtt.status()
        assert status.dropped >= 150
        assert status.last_error
        mosquitto.start()
        heard = Listener(mosquitto.port)
        until(lambda: heard.retained.get(TOPICS.state(PEOPLE)) == "199")
        until(lambda: mqtt.status().waiting == 0)
        first = [json.loads(t)["after"] for name, t in heard.messages if name == TOPICS.events]
        assert set(first) <= set(range(50))
        heard.close()
        mqtt.close()


def test_a_gateway_that_dies_is_offline_by_its_last_will(
    mosquitto: Mosquitto, heard: Listener
) -> None:
    mqtt = told(mosquitto.port)
    until(lambda: heard.retained.get(TOPICS.available) == "online")
    sock = mqtt._client.socket()
    assert sock is not None
    mqtt._client._reconnect_min_delay = mqtt._client._reconnect_max_delay = 60
    sock.shutdown(2)
    until(lambda: heard.retained.get(TOPICS.available) == "offline")
    mqtt.close()


def test_nobody_there_is_told_in_the_status() -> None:
    mqtt = told(free_port())
    until(lambda: mqtt.status().failures > 0)
    assert not mqtt.status().well
    assert mqtt.status().last_error == "no connection"
    mqtt.close()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_tls_and_a_password(program: str, tmp_path: Path) -> None:
    certificate = write_certificate(tmp_path, [], now=datetime.now(UTC))
    maker = [program.replace("/sbin/", "/bin/") + "_passwd", "-b", "-c"]
    subprocess.run([*maker, tmp_path / "users", "gate", "s3cret"], check=True)
    settings = (
        f"allow_anonymous false\npassword_file {tmp_path / 'users'}\n"
        f"certfile {certificate}\nkeyfile {certificate.with_name('key.pem')}"
    )
    broker: dict[str, Any] = {"tls": True, "ca_file": certificate, "user": "gate"}
    with running_broker(program, tmp_path, settings) as mosquitto:
        good = told(mosquitto.port, **broker, password="s3cret")
        until(lambda: good.status().well)
        good.close()
        for wrong in ({"password": "guess"}, {"password": "s3cret", "ca_file": None}):
            bad = told(mosquitto.port, **{**broker, **wrong})
            until(lambda bad=bad: bad.status().failures > 0)  # type: ignore[misc]
            assert not bad.status().well
            bad.close()
    del bad
    gc.collect()  # Paho leaves the socket of a handshake that failed to the collector


def test_different_names_are_different_topics() -> None:
    names = ["a b", "a_b", "a.b", "a/b", "a", "b", "å"]
    assert len({slug(name) for name in names}) == len(names)
    assert slug("yard-2") == "yard-2"


@pytest.mark.parametrize(
    ("measure", "answer", "payload"),
    [
        ("presence", True, "ON"),
        ("anomaly", False, "OFF"),
        ("count", 3, "3"),
        ("value", 2.5, "2.5"),
        ("labels", [0, 1, 7], "cat,dog,7"),
        ("labels", [], "none"),  # an empty payload would take the topic back
    ],
)
def test_payloads(measure: str, answer: object, payload: str) -> None:
    assert state(Point("c", "t", measure, labels=("cat", "dog")), answer) == payload
