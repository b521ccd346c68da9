"""The demo, whole, on a trained model: what scripts may rely on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from triparty.common import demo_site, scenes


def run_demo(folder: Path, model: Path, **environment: str) -> dict[str, Any]:
    """What the demo reports; its files are in `kept`, what it trains in `cache`."""
    words = ("--model", model, "--prompt", "Once upon a time", "--max-tokens", "20")
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "triparty.common",
            "demo",
            *words,
            "--workdir",
            folder / "kept",
            "--json",
        ],
        capture_output=True,
        text=True,
        timeout=590,
        check=False,
        env={**os.environ, "XDG_CACHE_HOME": str(folder / "cache"), **environment},
    )
    assert done.returncode == 0, done.stderr
    told: dict[str, Any] = json.loads(done.stdout)
    return told


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_demo_asks_with_an_encoder_of_its_own(tmp_path: Path, stories_model: Path) -> None:
    """Where no trained one is installed."""
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    code = f"import sys; sys.modules[{demo_site.PACKAGE!r}] = None\n"
    (hidden / "sitecustomize.py").write_text(code)
    path = os.pathsep.join(filter(None, (str(hidden), os.environ.get("PYTHONPATH"))))
    building = run_demo(tmp_path, stories_model, PYTHONPATH=path)["building"]
    assert building["encoder"] == "example-encoder"
    assert building["answer"].startswith("Yes")
    assert building["evidence"] >= 2


@pytest.mark.timeout(600)
def test_the_demo_reports_what_scripts_rely_on(tmp_path: Path, stories_model: Path) -> None:
    told = run_demo(tmp_path, stories_model)
    assert told["identical"] is True
    assert told["tokens"] == 20
    assert told["seconds"] > 0
    assert told["device_saw"]["answer"].startswith(", there was a little girl named Lily.")
    assert told["cloud_saw"]["requests"] == 20
    assert "Lily" not in json.dumps(told["cloud_saw"])
    (attack,) = told["attacks"]
    assert (attack["name"], attack["level"], attack["recovered"]) == ("sorted-rows", "K2", 1.0)
    assert {"cloud", "developer", "device"} <= {
        path.name for path in (tmp_path / "kept").iterdir()
    }
    building = told["building"]
    assert building["question"].startswith("Was anybody in the meeting room")
    assert building["answer"].startswith("Yes")
    assert building["evidence"] >= 2
    # Nine in the first twenty seconds of the films; a gate may miss some, a busy machine takes
    # longer and sees more.
    assert 5 <= building["events"] <= 20
    parts, names = building["sent"]
    assert 0 < parts < 50
    assert names > 0
    assert building["page"].startswith("http://127.0.0.1:")
    assert len(building["password"]) >= 12
    assert 0.02 < building["decoded_share"] < 0.95
    (detector,) = (tmp_path / "cache" / "triparty").glob("example-detector-*.onnx")
    assert_it_finds(detector)


def assert_it_finds(detector: Path) -> None:
    """Of scenes that it was not trained on, it counts nearly all right."""
    import av

    from triparty.device.gate.detectors import Detector

    found, rng, right = Detector(detector, least_score=0.5), np.random.default_rng(99), 0
    for _ in range(40):
        picture, things = scenes.picture(rng)
        seen = found.detect(av.VideoFrame.from_ndarray(picture, format="rgb24"))
        right += sorted(seen.labels.tolist()) == sorted(label for label, _ in things)
    assert right >= 30
