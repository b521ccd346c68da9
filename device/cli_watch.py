"""`triparty device watch`: cameras under one decoding budget, until it is told to stop."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from triparty.common.console import Console

if TYPE_CHECKING:
    from triparty.device.gateway.gateway import Gateway
    from triparty.device.gateway.reloading import Reloader
    from triparty.device.gateway.results import Document
    from triparty.device.gateway.settings import WatchSettings
    from triparty.device.gateway.status import GatewayStatus

LINE_S = 10
TABLE_S = 60
ONCE_S = 60.0


def watch(
    config: Annotated[Path, typer.Argument(help="TOML; see docs/gating.md.")],
    policy: Annotated[
        str | None, typer.Option(help="What is worth decoding (default: the file's).")
    ] = None,
    budget_ms: Annotated[
        float | None, typer.Option(help="CPU ms for decoding per round (default: the file's).")
    ] = None,
    seconds: Annotated[float | None, typer.Option(min=0.0, help="Stop after so long.")] = None,
    once: Annotated[
        bool,
        typer.Option(
            "--once",
            help="Stop when every camera was looked at or has failed, at most after --seconds "
            f"(default {ONCE_S:.0f}); exit code 1 if one has failed.",
        ),
    ] = False,
    fast: Annotated[
        bool, typer.Option("--fast", help="Read files as fast as it goes; no live streams.")
    ] = False,
    check: Annotated[
        bool,
        typer.Option(
            "--check",
            help="Read the file, open the models, filters, gate and plan that it names, say "
            "what is wrong, and stop; no camera is opened.",
        ),
    ] = False,
    home: Annotated[
        Path | None,
        typer.Option("--home", help="Folder of the device that asks the page's questions."),
    ] = None,
    as_json: Annotated[
        bool,
        typer.Option(
            "--json", help="Print results, events and a summary as JSON, one a line, no more."
        ),
    ] = False,
) -> None:
    """Watch cameras: decode what is worth it, under one budget, and tell what models see."""
    _require_extra()
    from triparty.device.gateway.reloading import Reloader
    from triparty.device.gateway.settings import WatchSettings
    from triparty.device.gateway.watching import open_settings

    def load() -> WatchSettings:
        return WatchSettings.load(config, policy=policy, budget_ms=budget_ms)

    def parse(text: str) -> WatchSettings:
        return WatchSettings.parse(text, config, policy=policy, budget_ms=budget_ms)

    settings = load()
    console = Console(as_json=as_json)
    for warning in _warnings(settings):
        typer.echo(f"warning: {warning}", err=True)
    if check:
        open_settings(settings)
        console.say(f"{config}: nothing wrong, cameras: {len(settings.cameras)}")
        console.report({"type": "check", "cameras": len(settings.cameras)})
        return
    reloader = Reloader(config, on_change=settings.reload.on_change)
    failed = _run(
        settings,
        console,
        _Again(reloader, load, config, parse),
        home=home,
        seconds=seconds,
        once=once,
        fast=fast,
    )
    if once and failed:
        raise typer.Exit(1)


def _run(
    settings: WatchSettings,
    console: Console,
    again: _Again,
    *,
    home: Path | None,
    seconds: float | None,
    once: bool,
    fast: bool,
) -> bool:
    """Watches; returns whether a camera was never looked at."""
    from triparty.device.gateway.clock import VirtualClock, WallClock
    from triparty.device.gateway.status import document, line, table
    from triparty.device.gateway.watching import make_gateway

    clock = VirtualClock() if fast else WallClock()
    gateway = make_gateway(settings, clock=clock, lines=_Printed(console))
    teller = _Teller(console)

    with (
        _told_by_signals(gateway, again.reloader),
        _metrics(gateway, console),
        _page(gateway, again, home) as shown,
    ):

        def told(status: GatewayStatus) -> None:
            again.look(gateway)
            teller(status)
            shown(status)

        try:
            gateway.run(
                seconds=ONCE_S if once and seconds is None else seconds,
                enough=_all_seen if once else None,
                told=told,
            )
        finally:
            clean = gateway.close()
    for each in table(gateway.status):
        console.say(each)
    console.say(line(gateway.status))
    console.report(document(gateway.status))
    if not clean:
        typer.echo("warning: a thread did not end in time and was left behind", err=True)
    return not _all_looked_at(gateway.status)


def _require_extra() -> None:
    from importlib.util import find_spec

    from triparty.common.errors import SettingsError

    for module in ("av", "onnxruntime", "paho", "sqlalchemy"):
        if find_spec(module) is None:
            raise SettingsError(
                f"'triparty device watch' needs {module}: pip install 'triparty[gateway]'"
            )


def _warnings(settings: WatchSettings) -> Iterator[str]:
    """What is dangerous about a configuration."""
    for camera in settings.cameras:
        if warning := camera.address(settings.folder).warning:
            yield f"camera '{camera.name}': {warning}"
    for model in settings.models:
        if model.python is not None:
            yield (
                f"model '{model.name}' runs {model.python} with all rights of this process: "
                "only from a configuration that you wrote"
            )
    for one in settings.filters:
        if one.samples is not None:
            yield f"filter '{one.name}' keeps pictures of cameras in {one.samples}"
    page = settings.page
    if page is not None and page.insecure_no_tls and not page.is_local:
        yield (
            f"the page on {page.host} has no TLS: everyone on the network path can read all "
            "that cameras see, and the password"
        )
    mqtt = settings.mqtt
    if mqtt.host is not None and not mqtt.tls and mqtt.host not in _LOOPBACK:
        what = "events" if mqtt.user is None else "events and the password"
        yield f"[mqtt] is not encrypted: whoever is on that network sees {what}; set tls = true"
    for hook in settings.webhooks:
        if hook.url.startswith("http://"):
            where = f"webhook '{hook.name}'"
            yield f"{where} is not encrypted: whoever is on that network sees events"
    if settings.metrics.port is not None and settings.metrics.host not in _LOOPBACK:
        yield (
            f"metrics are shown to whoever reaches {settings.metrics.host}; they tell when "
            "something happened at a camera"
        )


_LOOPBACK = ("127.0.0.1", "::1", "localhost")


def _all_looked_at(status: GatewayStatus) -> bool:
    return all(camera.looks for camera in status.cameras)


def _all_seen(status: GatewayStatus) -> bool:
    """Whether every camera was looked at, or has shown that it cannot be."""
    from triparty.device.streams.status import FINAL

    return all(
        camera.looks or camera.stream.state in FINAL or camera.stream.last_error
        for camera in status.cameras
    )


class _Printed:
    """A sink that prints documents: JSON as it is, events as a line for people."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def write(self, documents: Sequence[Document], now: float) -> None:
        """Prints."""
        for each in documents:
            self._console.report(each)
            if each["type"] == "event":
                clip = f"  {each['clip']}" if each.get("clip") else ""
                change = f"{_short(each['before'])} -> {_short(each['after'])}"
                self._console.say(f"{each['camera']}: {each['task']} {change}{clip}")

    def close(self) -> None:
        """Holds nothing."""


def _short(answer: Any) -> str:
    return json.dumps(answer)


class _Teller:
    """Tells now and then on a terminal how things stand."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._calls = 0

    def __call__(self, status: GatewayStatus) -> None:
        from triparty.device.gateway.status import line, table

        self._calls += 1
        if not sys.stderr.isatty() or self._console.as_json:
            return
        if self._calls % TABLE_S == 1:
            for each in table(status):
                typer.echo(each, err=True)
        if self._calls % LINE_S == 1:
            typer.echo(line(status), err=True)


@contextmanager
def _metrics(gateway: Gateway, console: Console) -> Iterator[None]:
    settings = gateway.settings.metrics
    if settings.port is None:
        yield
        return
    from triparty.device.gateway.metrics import MetricsServer

    server = MetricsServer(lambda: gateway.status, host=settings.host, port=settings.port)
    console.say(f"metrics on http://{settings.host}:{server.port}/metrics")
    try:
        yield
    finally:
        server.stop()


@contextmanager
def _page(
    gateway: Gateway, again: _Again, home: Path | None
) -> Iterator[Callable[[GatewayStatus], None]]:
    settings = gateway.settings.page
    if settings is None:
        yield lambda status: None
        return
    from triparty.device.gateway.editing import Editor
    from triparty.device.page.showing import page_beside

    editor = Editor(
        again.file,
        parse=again.parse,
        running=lambda: gateway.settings,
        ask=again.reloader.ask,
    )
    say = partial(typer.echo, err=True)
    with page_beside(gateway, settings, editor=editor, say=say, home=home) as shown:
        yield shown


@dataclass(frozen=True)
class _Again:
    """Has a gateway take the file anew when it is due.

    Attributes:
        reloader: knows when.
        load: reads the file.
        file: that is read.
        parse: makes settings of its text, as `load` does.
    """

    reloader: Reloader
    load: Callable[[], WatchSettings]
    file: Path
    parse: Callable[[str], WatchSettings]

    def look(self, gateway: Gateway) -> None:
        """Once a second."""
        if self.reloader.is_due():
            gateway.reload(self._loaded)
            if gateway.status.refused is None:
                cameras = len(gateway.settings.cameras)
                typer.echo(f"configuration read again, cameras: {cameras}", err=True)

    def _loaded(self) -> WatchSettings:
        settings = self.load()
        for warning in _warnings(settings):
            typer.echo(f"warning: {warning}", err=True)
        return settings


@contextmanager
def _told_by_signals(gateway: Gateway, reloader: Reloader) -> Iterator[None]:
    """SIGTERM and SIGINT end the loop after its round; a second one ends the process.

    SIGHUP has the configuration read again; where it means that the terminal is gone, it ends
    the loop, too, unless it was ignored before (nohup).
    """
    before: dict[int, Any] = {}

    def stop(number: int, frame: FrameType | None) -> None:
        signal.signal(number, before[number])
        gateway.stop()

    def hear(number: int, frame: FrameType | None) -> None:
        if had_terminal and before[number] != signal.SIG_IGN and not _has_terminal():
            gateway.stop()
        reloader.ask()

    had_terminal = _has_terminal()
    for number in (int(signal.SIGTERM), int(signal.SIGINT)):
        before[number] = signal.signal(number, stop)
    if hasattr(signal, "SIGHUP"):  # Windows has none
        before[signal.SIGHUP] = signal.signal(signal.SIGHUP, hear)
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


def _has_terminal() -> bool:
    """Whether there is a terminal that can go away."""
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY))
    except (OSError, AttributeError):
        return False
    return True
