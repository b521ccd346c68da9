"""The demo, whole, on a trained model: what scripts may rely on."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.timeout(280)
def test_the_demo_reports_what_scripts_rely_on(tmp_path: Path, stories_model: Path) -> None:
    words = ("--model", stories_model, "--prompt", "Once upon a time", "--max-tokens", "20")
    folder = tmp_path / "kept"
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "triparty.common",
            "demo",
            *words,
            "--workdir",
            folder,
            "--json",
        ],
        capture_output=True,
        text=True,
        timeout=270,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["identical"] is True
    assert told["tokens"] == 20
    assert told["seconds"] > 0
    assert told["device_saw"]["answer"].startswith(", there was a little girl named Lily.")
    assert told["cloud_saw"]["requests"] == 20
    assert "Lily" not in json.dumps(told["cloud_saw"])
    (attack,) = told["attacks"]
    assert (attack["name"], attack["level"], attack["recovered"]) == ("sorted-rows", "K2", 1.0)
    assert {"cloud", "developer", "device"} <= {path.name for path in folder.iterdir()}
