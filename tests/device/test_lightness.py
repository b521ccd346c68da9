"""What a device's process loads: no training framework, no server, nothing of other roles."""

from __future__ import annotations

import json
import subprocess
import sys

HEAVY = (
    "torch",
    "onnx",
    "onnxruntime",
    "transformers",
    "flwr",
    "fastapi",
    "av",
    "accelerate",
    "sqlalchemy",
    "ray",
)
SERVER = ("starlette", "uvicorn", "jinja2")


def loaded_by(code: str) -> set[str]:
    """The top-level modules that a program loads, and the roles."""
    told = f"{code}\nimport sys, json\nprint(json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", told], capture_output=True, text=True, check=True
    )
    names = json.loads(done.stdout.splitlines()[-1])
    return {name.partition(".")[0] for name in names} | set(names)


EVERYTHING = (
    "import triparty.device\n"
    "from triparty.device import *\n"
    "from triparty.device import AsyncDevice, Device, Generation, GenerationOptions\n"
    "import triparty.device.client, triparty.device.cli, triparty.device.chat.dialogue\n"
    "import triparty.device.filters, triparty.device.filters.filtered"
)


def test_the_device_needs_neither_torch_nor_a_server() -> None:
    loaded = loaded_by(EVERYTHING)
    assert "triparty.device" in loaded
    assert not loaded & {*HEAVY, *SERVER}
    assert not loaded & {"triparty.cloud", "triparty.developer"}


def test_the_endpoint_needs_no_torch_and_no_fastapi() -> None:
    loaded = loaded_by("import triparty.device.endpoint.server")
    assert {"starlette", "uvicorn"} <= loaded
    assert not loaded & set(HEAVY)


def test_a_module_that_is_loaded_is_seen() -> None:
    assert "sqlite3" in loaded_by("import triparty.device, sqlite3")
