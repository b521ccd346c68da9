"""Events and states on an MQTT broker, by Eclipse Paho.

Paho's thread speaks to the broker; nobody waits for it. States are retained, and all are told
anew after each connection, so QoS 0 will do for them. Events are sent with QoS 1, and wait for
the broker within a bound.
"""

from __future__ import annotations

import logging
import ssl
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from paho.mqtt.client import Client, ConnectFlags, DisconnectFlags, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from triparty.common.errors import SettingsError
from triparty.device.events.homeassistant import (
    OFFLINE,
    ONLINE,
    Topics,
    configs,
    nothing,
    state,
    told,
)
from triparty.device.events.outlet import OutletStatus, Point, Site

MOST_WAITING: Final = 1000
FAREWELL_S: Final = 2.0
LONGEST_WAIT_S: Final = 60

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Broker:
    """Where a broker is, and as whom it is spoken to.

    Attributes:
        host: name or address.
        port: of it.
        tls: whether to speak TLS.
        ca_file: certificates to trust; None for the system's.
        user: of the broker; None for nobody.
        password: of the user.
    """

    host: str
    port: int
    tls: bool = False
    ca_file: Path | None = None
    user: str | None = None
    password: str | None = field(default=None, repr=False)


class Mqtt:
    """Tells a broker.

    Args:
        broker: that is told.
        topics: where it is told.

    Raises:
        SettingsError: certificates that cannot be read.
    """

    def __init__(self, broker: Broker, topics: Topics) -> None:
        """Connects when it is told of a site."""
        self._broker, self._topics = broker, topics
        self._lock = threading.Lock()
        self._retained: dict[str, str] = {}
        self._points: dict[tuple[str, str | None, str], Point] = {}
        self._site = Site()
        self._connected = False
        self._sent = self._dropped = self._failures = 0
        self._waiting = set[int]()  # numbers of events' messages
        self._taken = deque[int]()  # of any messages; Paho's thread appends, without the lock
        self._last_error: str | None = None
        self._client = self._make_client()
        self._has_begun = False

    # What the gateway calls.

    def hear_site(self, site: Site) -> None:
        """Tells what there is now, and takes back what there is no more."""
        topics = self._topics
        found = configs(topics, site)
        with self._lock:
            self._site = site
            self._points = {(p.camera, p.zone, p.task): p for p in site.points}
            mine = {topics.camera(name) for name in site.cameras}
            mine |= {topics.state(point) for point in site.points} | found.keys()
            gone = [topic for topic in self._retained if topic not in mine]
            for topic in gone:
                del self._retained[topic]
                self._publish_now(topic, "")
            for topic, payload in found.items():
                self._retain(topic, payload)
            for name in site.cameras:
                if topics.camera(name) not in self._retained:
                    self._retain(topics.camera(name), OFFLINE)
        if not self._has_begun:
            self._has_begun = True
            self._client.connect_async(self._broker.host, self._broker.port, keepalive=30)
            self._client.loop_start()

    def write(self, documents: Sequence[Mapping[str, Any]], now: float) -> None:
        """Tells states of cameras, answers, and events."""
        with self._lock:
            for document in documents:
                if document["type"] == "state":
                    self._hear_state(document)
                elif document["type"] == "result":
                    self._hear_result(document)
                elif document["type"] == "event":
                    self._hear_event(document)

    def status(self) -> OutletStatus:
        """How it stands."""
        with self._lock:
            self._count_taken()
            return OutletStatus(
                name=f"{self._broker.host}:{self._broker.port}",
                kind="mqtt",
                well=self._connected,
                sent=self._sent,
                waiting=len(self._waiting),
                dropped=self._dropped,
                failures=self._failures,
                last_error=None if self._connected else self._last_error,
            )

    def close(self) -> None:
        """Says that the gateway is gone, and ends the thread."""
        with self._lock:
            is_connected = self._connected
        if is_connected:
            info = self._client.publish(self._topics.available, OFFLINE, qos=1, retain=True)
            try:
                info.wait_for_publish(FAREWELL_S)
            except (RuntimeError, ValueError):  # the connection has just broken
                log.debug("no farewell to the broker")
        if self._has_begun:
            self._client.disconnect()
            self._client.loop_stop()

    # Documents; the lock is held.

    def _hear_state(self, document: Mapping[str, Any]) -> None:
        camera = document["camera"]
        if camera not in self._site.cameras:
            return
        is_live = document["state"] == "live"
        self._retain(self._topics.camera(camera), ONLINE if is_live else OFFLINE)
        if document["state"] == "removed":  # and it begins anew, with nothing in view
            for point in self._site.points:
                if point.camera == camera and self._topics.state(point) in self._retained:
                    self._retain(self._topics.state(point), nothing(point))

    def _hear_result(self, document: Mapping[str, Any]) -> None:
        """The first look of a camera: nothing is in view until an event says so."""
        for name in document["answers"]:
            task, _, zone = name.partition("@")
            point = self._points.get((document["camera"], zone or None, task))
            if point is not None and self._topics.state(point) not in self._retained:
                self._retain(self._topics.state(point), nothing(point))

    def _hear_event(self, document: Mapping[str, Any]) -> None:
        key = (document["camera"], document.get("zone"), document["task"])
        if (point := self._points.get(key)) is not None:
            self._retain(self._topics.state(point), state(point, document["after"]))
        info = self._client.publish(self._topics.events, told(document), qos=1)
        if info.rc == MQTTErrorCode.MQTT_ERR_QUEUE_SIZE:
            self._dropped += 1
        else:
            self._waiting.add(info.mid)
        self._count_taken()

    def _count_taken(self) -> None:
        while self._taken:
            number = self._taken.popleft()
            if number in self._waiting:
                self._waiting.remove(number)
                self._sent += 1

    def _retain(self, topic: str, payload: str) -> None:
        if self._retained.get(topic) != payload:
            self._retained[topic] = payload
            self._publish_now(topic, payload)

    def _publish_now(self, topic: str, payload: str) -> None:
        """Tells a broker that is there; one that is not is told all when it comes."""
        if self._connected:
            self._client.publish(topic, payload, qos=0, retain=True)

    # What Paho's thread calls.

    def _make_client(self) -> Client:
        broker = self._broker
        client = Client(
            CallbackAPIVersion.VERSION2,
            client_id=f"triparty-{self._topics.site}",
            clean_session=True,
        )
        if broker.user is not None:
            client.username_pw_set(broker.user, broker.password)
        if broker.tls:
            try:
                client.tls_set_context(ssl.create_default_context(cafile=broker.ca_file))
            except OSError as error:
                raise SettingsError(f"[mqtt] ca_file {broker.ca_file}: {error}") from error
        client.will_set(self._topics.available, OFFLINE, qos=1, retain=True)
        client.reconnect_delay_set(1, LONGEST_WAIT_S)
        client.max_queued_messages_set(MOST_WAITING)
        client.on_connect = self._on_connect
        client.on_connect_fail = self._on_connect_fail
        client.on_disconnect = self._on_disconnect
        client.on_publish = self._on_publish
        client.on_message = self._on_message
        return client

    def _on_connect(
        self,
        client: Client,
        userdata: object,
        flags: ConnectFlags,
        reason: ReasonCode,
        properties: Properties | None,
    ) -> None:
        with self._lock:
            if reason.is_failure:
                self._fail(f"refused: {reason}")
                return
            self._connected, self._last_error = True, None
            log.info("connected to the broker %s", self._broker.host)
            # Before what is there now: what others left is then told apart by being unknown.
            client.subscribe([(topic, 1) for topic in self._topics.retained])
            self._publish_now(self._topics.available, ONLINE)
            for topic, payload in self._retained.items():
                self._publish_now(topic, payload)

    def _on_connect_fail(self, client: Client, userdata: object) -> None:
        with self._lock:
            self._fail("no connection")

    def _on_disconnect(
        self,
        client: Client,
        userdata: object,
        flags: DisconnectFlags,
        reason: ReasonCode,
        properties: Properties | None,
    ) -> None:
        with self._lock:
            self._connected = False
            if reason.is_failure and self._last_error is None:
                self._fail(f"disconnected: {reason}")

    def _on_publish(
        self,
        client: Client,
        userdata: object,
        number: int,
        reason: ReasonCode,
        properties: Properties | None,
    ) -> None:
        self._taken.append(number)  # without the lock: Paho holds one of its own here

    def _on_message(self, client: Client, userdata: object, message: MQTTMessage) -> None:
        """Takes back what an earlier run left of cameras that are gone."""
        with self._lock:
            if message.retain and message.payload and message.topic not in self._retained:
                if message.topic in map(self._topics.state, self._points.values()):
                    return  # its first look will tell
                self._publish_now(message.topic, "")

    def _fail(self, why: str) -> None:
        self._connected = False
        self._failures += 1
        if self._last_error != why:
            log.warning("the broker %s: %s", self._broker.host, why)
        self._last_error = why
