"""Topics and payloads of a site on MQTT, with Home Assistant's discovery; pure.

| topic | retained | payload |
|---|---|---|
| `PREFIX/SITE/available` | yes | `online`, or `offline` (also by the last will) |
| `PREFIX/SITE/cameras/CAMERA/available` | yes | the same, of a camera |
| `PREFIX/SITE/cameras/CAMERA/ANSWER` | yes | `ON`/`OFF`, a number, or labels (`none`) |
| `PREFIX/SITE/events` | no | JSON of an event |
| `DISCOVERY/KIND/SITE/ID/config` | yes | JSON: what Home Assistant is to make of an answer |

The discovery topics are https://www.home-assistant.io/integrations/mqtt/#mqtt-discovery.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Final

from triparty.device.events.outlet import Point, Site

ONLINE, OFFLINE = "online", "offline"
YES_NO: Final = ("presence", "anomaly")
_UNSAFE: Final = re.compile(r"[^A-Za-z0-9_-]+")


@dataclass(frozen=True)
class Topics:
    """Where a site's messages go.

    Attributes:
        prefix: of all topics.
        site: name of the gateway.
        discovery: prefix of Home Assistant's; empty for none.
    """

    prefix: str
    site: str
    discovery: str

    @property
    def base(self) -> str:
        """All topics of the site but discovery's begin so."""
        return f"{self.prefix}/{self.site}"

    @property
    def available(self) -> str:
        """Whether the gateway is there."""
        return f"{self.base}/available"

    @property
    def events(self) -> str:
        """Events as they happen."""
        return f"{self.base}/events"

    @property
    def retained(self) -> tuple[str, ...]:
        """Filters of all that brokers keep of the site and its cameras."""
        mine = (f"{self.base}/cameras/#",)
        return (*mine, f"{self.discovery}/+/{self.site}/+/config") if self.discovery else mine

    def camera(self, name: str) -> str:
        """Whether a camera is there."""
        return f"{self.base}/cameras/{slug(name)}/available"

    def state(self, point: Point) -> str:
        """The answer of a point."""
        return f"{self.base}/cameras/{slug(point.camera)}/{slug(point.name)}"

    def config(self, point: Point) -> str:
        """What Home Assistant reads of a point."""
        kind = "binary_sensor" if point.measure in YES_NO else "sensor"
        identity = slug(f"{point.camera}/{point.name}")
        return f"{self.discovery}/{kind}/{self.site}/{identity}/config"


def slug(name: str) -> str:
    """A name as a level of a topic; different names stay different."""
    plain = _UNSAFE.sub("_", name)
    return plain if plain == name else f"{plain}_{sha256(name.encode()).hexdigest()[:8]}"


def configs(topics: Topics, site: Site) -> dict[str, str]:
    """What Home Assistant is told of a site: payloads by topic; nothing without discovery."""
    if not topics.discovery:
        return {}
    return {topics.config(point): json.dumps(_config(topics, point)) for point in site.points}


def state(point: Point, answer: Any) -> str:
    """The payload of an answer."""
    if point.measure in YES_NO:
        return "ON" if answer else "OFF"
    if isinstance(answer, list | tuple):
        return ",".join(_label(label, point.labels) for label in answer) or "none"
    return json.dumps(answer)


def nothing(point: Point) -> str:
    """The payload while nothing is in view."""
    return state(point, [] if point.measure == "labels" else 0)


def told(document: Mapping[str, Any]) -> str:
    """The payload of an event."""
    left_out = ("type", "time")
    return json.dumps({key: value for key, value in document.items() if key not in left_out})


def _config(topics: Topics, point: Point) -> dict[str, Any]:
    where = topics.state(point)
    config: dict[str, Any] = {
        "name": point.task if point.zone is None else f"{point.task} in {point.zone}",
        "unique_id": f"triparty_{topics.site}_{slug(f'{point.camera}/{point.name}')}",
        "state_topic": where,
        "availability": [
            {"topic": topics.available},
            {"topic": topics.camera(point.camera)},
        ],
        "availability_mode": "all",
        "device": {
            "identifiers": [f"triparty_{topics.site}_{slug(point.camera)}"],
            "name": point.camera,
            "manufacturer": "triparty",
            "model": "camera",
        },
        "origin": {"name": "triparty"},
    }
    if point.measure in YES_NO:
        is_problem = point.measure == "anomaly"
        config["device_class"] = "problem" if is_problem else "occupancy"
    elif point.measure != "labels":
        config["state_class"] = "measurement"
    return config


def _label(label: Any, names: tuple[str, ...]) -> str:
    return names[label] if isinstance(label, int) and 0 <= label < len(names) else str(label)
