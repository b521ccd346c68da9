"""A real MQTT broker of the tests' own: mosquitto on loopback."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion

START_LIMIT_S = 20


def find_mosquitto() -> str | None:
    """The program; Debian keeps it off the PATH of users."""
    places = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
    return shutil.which("mosquitto", path=places)


def free_port() -> int:
    """A port of loopback that nobody listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


class Broker:
    """A broker that can be stopped and started again on its port."""

    def __init__(self, program: str, folder: Path, settings: str) -> None:
        self.port = free_port()
        self._command = [program, "-c", str(folder / "broker.conf")]
        text = f"listener {self.port} 127.0.0.1\n{settings}\n"
        (folder / "broker.conf").write_text(f"user root\npersistence false\n{text}")
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._process = subprocess.Popen(self._command, stderr=subprocess.DEVNULL)
        end = time.monotonic() + START_LIMIT_S
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
            except OSError:
                assert self._process.poll() is None, "mosquitto ended"
                assert time.monotonic() < end
                time.sleep(0.02)
            else:
                return

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


@contextmanager
def running_broker(program: str, folder: Path, settings: str) -> Iterator[Broker]:
    """A broker that runs until the end of the block."""
    broker = Broker(program, folder, settings)
    broker.start()
    try:
        yield broker
    finally:
        broker.stop()


class Listener:
    """Hears everything that a broker is told, as Home Assistant would."""

    def __init__(self, port: int, prepare: Callable[[Client], None] = lambda _: None) -> None:
        self.retained: dict[str, str] = {}
        self.messages: list[tuple[str, str]] = []
        self._subscribed = threading.Event()
        self.client = Client(CallbackAPIVersion.VERSION2)
        prepare(self.client)
        self.client.on_message = self._hear
        self.client.on_connect = lambda client, *_: client.subscribe("#", qos=1)
        self.client.on_subscribe = lambda *_: self._subscribed.set()
        self.client.connect("127.0.0.1", port)
        self.client.loop_start()
        assert self._subscribed.wait(START_LIMIT_S)

    def _hear(self, client: Client, userdata: object, message: MQTTMessage) -> None:
        payload = message.payload.decode()
        self.messages.append((message.topic, payload))
        self.retained[message.topic] = payload  # of topics that are retained: what is kept now
        if not payload:
            del self.retained[message.topic]

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()
