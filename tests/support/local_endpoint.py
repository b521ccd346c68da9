"""`triparty device serve` as a process of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def serving_locally(home: Path, *options: str, **environment: str) -> Iterator[str]:
    """The endpoint's base URL while the block runs; it must end by itself when told to."""
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "triparty.common", "device", "serve"),
            *("--home", str(home), "--port", "0", "--json", *options),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | environment,
    )
    with process:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, process.stderr.read() if process.stderr else ""
        try:
            yield json.loads(line)["url"]
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=60)
    assert process.returncode in (0, -signal.SIGTERM)
