"""What docs/gating.md and the example say of the configuration is so."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

from triparty.device.gate.policies import POLICIES
from triparty.device.gateway.outlet_settings import MqttSettings, WebhookSettings
from triparty.device.gateway.settings import (
    CameraDefaults,
    FilterSettings,
    GateSettings,
    MaskSettings,
    MetricSettings,
    ModelSettings,
    PageSettings,
    ReloadSettings,
    ResultSettings,
    TaskSettings,
    WatchSettings,
    ZoneSettings,
)
from triparty.device.gateway.table import Table
from triparty.device.streams.status import State

ROOT = Path(__file__).resolve().parents[3]
TEXT = (ROOT / "docs" / "gating.md").read_text(encoding="utf-8")


def reference() -> str:
    found = re.search(r"<!-- reference -->\n```toml\n(.*?)```", TEXT, re.DOTALL)
    assert found
    return found[1]


def test_the_reference_is_a_configuration(tmp_path: Path) -> None:
    (tmp_path / "watch.toml").write_text(reference())
    settings = WatchSettings.load(tmp_path / "watch.toml")
    assert [camera.name for camera in settings.cameras] == ["yard", "demo"]


def test_the_reference_names_every_key_with_its_default() -> None:
    document = tomllib.loads(reference())
    tables: list[tuple[type[Table], dict[str, Any]]] = [
        (CameraDefaults, document["defaults"]),
        (GateSettings, document["gate"]),
        (MetricSettings, document["metrics"]),
        (PageSettings, document["page"]),
        (ReloadSettings, document["reload"]),
        (ResultSettings, document["results"]),
        (ModelSettings, document["models"][0]),
        (TaskSettings, document["tasks"][0]),
        (FilterSettings, document["filters"][0]),
        (MqttSettings, document["mqtt"]),
        (WebhookSettings, document["webhooks"][0]),
        (ZoneSettings, document["cameras"][0]["zones"][0]),
        (MaskSettings, document["cameras"][0]["masks"][0]),
    ]
    no_default = {"name", "artifact", "model", "measure", "classes", "labels", "port", "file"}
    no_default |= {"url", "polygon", "tasks"}
    for table, given in tables:
        for name, field in table.model_fields.items():
            assert re.search(rf"\b{name} =", reference()), f"{name} is not documented"
            default = field.get_default(call_default_factory=True)
            if isinstance(default, tuple):
                default = list(default)
            if isinstance(default, Path):
                default = str(default)
            if name in given and name not in no_default and default is not None:
                assert given[name] == default, f"the default of {name}"


def test_every_policy_and_state_is_named() -> None:
    for policy in POLICIES:
        assert policy == "oracle" or f"`{policy}`" in TEXT
    for state in State:
        assert f"`{state}`" in TEXT


def test_the_example_can_be_read() -> None:
    settings = WatchSettings.load(ROOT / "examples" / "watch.toml")
    assert len(settings.cameras) == 2
