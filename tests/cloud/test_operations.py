"""The operator's handbook is true to the code."""

from __future__ import annotations

import configparser
import re
import shlex
from pathlib import Path

import pytest
from click import unstyle
from prometheus_client.parser import text_string_to_metric_families
from systemd_units import check_unit, faults, needs_systemd, unit_in
from typer.testing import CliRunner

from triparty.cloud.cli import app as cloud_cli
from triparty.cloud.server import CUT_S, OWN_FILES
from triparty.cloud.settings import CloudSettings

HANDBOOK = (Path(__file__).parents[2] / "docs" / "operations.md").read_text(encoding="utf-8")
TOKEN = "s" * 40


def section(title: str) -> str:
    """The text under a heading."""
    return HANDBOOK.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def unit() -> configparser.ConfigParser:
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read_string(unit_in(HANDBOOK))
    return parser


def test_the_unit_starts_the_command_that_there_is():
    service = unit()["Service"]
    program, *words = shlex.split(service["ExecStart"])
    assert Path(program).name == "triparty"
    role, command, *options = words
    assert role == "cloud"
    shown = CliRunner().invoke(cloud_cli, [command, "--help"])
    assert shown.exit_code == 0
    said = unstyle(shown.output)
    named = [option for option in options if option.startswith("-")]
    assert named
    assert all(re.search(rf"{option}\b", said) for option in named)
    drain_s = CloudSettings.model_fields["drain_s"].default
    assert int(service["TimeoutStopSec"]) > drain_s + CUT_S
    files = CloudSettings.model_fields["max_connections"].default + OWN_FILES
    assert int(service["LimitNOFILE"]) >= files


@needs_systemd
@faults
def test_systemd_takes_the_unit(tmp_path, line, is_good):
    name = "triparty-cloud.service"
    check_unit(unit_in(HANDBOOK), name, tmp_path, line=line, is_good=is_good)


def named_in_table(title: str) -> set[str]:
    """What stands between backquotes in the first column of a section's first table."""
    table = section(title).partition("\n\nAlerts")[0]
    first = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    return set(re.findall(r"`([a-z_]+)`", " ".join(first)))


def test_every_setting_is_in_the_table():
    assert named_in_table("Settings") == set(CloudSettings.model_fields)


@pytest.mark.parametrize(
    "name",
    [
        "max_connections_per_address",
        "header_timeout_s",
        "keep_alive_s",
        "body_timeout_s",
        "min_body_bytes_per_s",
        "answer_timeout_s",
        "drain_s",
        "session_idle_s",
        "token_days",
    ],
)
def test_the_tables_default_is_the_codes(name):
    (line,) = [line for line in HANDBOOK.splitlines() if line.startswith(f"| `{name}` |")]
    assert float(line.split("|")[2]) == CloudSettings.model_fields[name].default


def test_every_metric_is_in_the_table(make_cloud):
    cloud = make_cloud(metrics_token=TOKEN)
    cloud.app.state.metrics.watch_connections(lambda: 0)
    cloud.request("GET", "/nothing")
    page = cloud.request("GET", "/metrics", TOKEN).text
    families = list(text_string_to_metric_families(page))
    names = {f.name + ("_total" if f.type == "counter" else "") for f in families}
    names = {f"{name}_info" if name == "triparty_build" else name for name in names}
    assert names == named_in_table("Metrics")


def test_alerts_ask_for_metrics_that_are_there():
    alerts = section("Metrics").partition("\nAlerts")[2]
    asked = {name.removesuffix("_bucket") for name in re.findall(r"triparty_[a-z_]+", alerts)}
    assert asked
    assert asked <= named_in_table("Metrics")
