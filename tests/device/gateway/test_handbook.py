"""What docs/gateway.md and docs/events.md say is so."""

from __future__ import annotations

import configparser
import re
import shlex
from pathlib import Path

import pytest
from click import unstyle
from systemd_units import check_unit, faults, needs_systemd, unit_in
from typer.testing import CliRunner

from triparty.device.cli import app as device_cli
from triparty.device.events.event import KINDS
from triparty.device.events.homeassistant import Topics, told
from triparty.device.events.outlet import OutletStatus, Point
from triparty.device.events.store import StoreStatus
from triparty.device.gateway.editing import CameraEdit, ModelEdit, TaskEdit
from triparty.device.gateway.gateway import STOP_S
from triparty.device.gateway.metrics import OUTLET_FIGURES, STORE_FIGURES

DOCS = Path(__file__).resolve().parents[3] / "docs"
GATEWAY = (DOCS / "gateway.md").read_text(encoding="utf-8")
EVENTS = (DOCS / "events.md").read_text(encoding="utf-8")


def test_the_unit_starts_the_command_that_there_is() -> None:
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read_string(unit_in(GATEWAY))
    service = parser["Service"]
    program, role, command, *words = shlex.split(service["ExecStart"])
    assert (Path(program).name, role) == ("triparty", "device")
    shown = CliRunner().invoke(device_cli, [command, "--help"])
    assert shown.exit_code == 0
    for option in (word for word in words if word.startswith("-")):
        assert option in unstyle(shown.output)
    assert "$MAINPID" in service["ExecReload"]
    assert "HUP" in service["ExecReload"]
    assert int(service["TimeoutStopSec"]) > 4 * STOP_S


@needs_systemd
@faults
def test_systemd_takes_the_unit(tmp_path: Path, line: str, is_good: bool) -> None:
    name = "triparty-gateway.service"
    check_unit(unit_in(GATEWAY), name, tmp_path, line=line, is_good=is_good)


def test_what_may_be_edited_is_named() -> None:
    for table in (CameraEdit, TaskEdit, ModelEdit):
        for key in table.model_fields:
            assert f"`{key}`" in GATEWAY


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_named(kind: str) -> None:
    assert f"`{kind}`" in EVENTS


def test_every_figure_is_named() -> None:
    for prefix, figures in (("store", STORE_FIGURES), ("outlet", OUTLET_FIGURES)):
        for name, *_ in figures:
            assert f"`{name.removesuffix('_total')}`" in EVENTS, f"{prefix}_{name}"
    assert StoreStatus().waiting == OutletStatus("a", "mqtt", well=True).waiting == 0


def test_the_topics_are_those_of_the_code() -> None:
    topics = Topics("triparty", "home", "homeassistant")
    door = Point("yard", "people", "count", "door")
    for topic in (topics.available, topics.camera("yard"), topics.events):
        assert f"`{topic}`" in EVENTS
    assert topics.state(door) in EVENTS
    assert topics.config(door).startswith("homeassistant/sensor/home/")
    assert "`homeassistant/+/home/+/config`" in EVENTS
    assert "type" not in told({"type": "event", "time": 1.0, "camera": "yard"})


def test_the_signature_of_the_page_is_ours(tmp_path: Path) -> None:
    from triparty.device.events.webhook import signature

    (code,) = re.findall(r"```python\n(.*?)```", EVENTS, re.DOTALL)
    space: dict[str, object] = {}
    exec(code, space)
    body = b'{"id": 1}'
    good = {
        "X-Triparty-Timestamp": "1000",
        "X-Triparty-Signature": signature("k", "1000", body),
    }
    is_genuine = space["is_genuine"]
    assert callable(is_genuine)
    assert is_genuine(b"k", good, body, now=1010.0)
    assert not is_genuine(b"other", good, body, now=1010.0)
    assert not is_genuine(b"k", good, body + b" ", now=1010.0)
    assert not is_genuine(b"k", good | {"X-Triparty-Timestamp": "1001"}, body, now=1010.0)
    assert not is_genuine(b"k", good, body, now=1000.0 + 3600)
