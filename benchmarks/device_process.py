"""What a device's own process takes: a fresh one each time, with a cloud in another."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks.checkpoints import real_model
from benchmarks.clouds import device_with
from benchmarks.harness import ROOT, Case, Effort, case

MODEL = "stories"
PROMPT = "Once upon a time, there was a little"


def _figures(effort: Effort) -> Iterator[dict[str, float]]:
    """What fresh processes tell of themselves."""
    with (
        tempfile.TemporaryDirectory() as name,
        device_with(real_model("stories260K"), Path(name), name=MODEL) as device,
    ):
        device.generate(MODEL, PROMPT, max_tokens=1)  # the cloud loads the model
        for _ in range(effort.runs):
            command = [sys.executable, "-m", "benchmarks.device_probe", MODEL, PROMPT]
            told = subprocess.run(
                [*command, str(Path(name) / "device")],
                cwd=ROOT,
                capture_output=True,
                text=True,
                check=True,
            )
            yield json.loads(told.stdout)


@case(
    "CPU time of a device's process from its start to the first token, stories260K",
    unit="s",
    better="lower",
    target=1.0,
    reference="target: within 1.0 s of CPU time",
)
def first_token(effort: Effort) -> Iterator[float]:
    """Python's start, imports, TLS or TCP, tokenizer and the first step."""
    return (figures["first_token_cpu_s"] for figures in _figures(effort))


@case(
    "memory of a device's process beyond the mapped table, stories260K",
    unit="MB",
    better="lower",
    target=120.0,
    reference="target: below 120 MB",
)
def memory(effort: Effort) -> Iterator[float]:
    """Its largest resident memory, less what the table's mapping has of it."""
    return (figures["beyond_table_mb"] for figures in _figures(effort))


@case(
    "CPU time of a device for each further token, stories260K",
    unit="ms",
    better="lower",
    reference="thesis figure 4.7d: 1.7 ms more than without protection",
)
def further_token(effort: Effort) -> Iterator[float]:
    """Lookup, request, reply, un-keying and choice."""
    return (figures["token_cpu_ms"] for figures in _figures(effort))


CASES: tuple[Case, ...] = (first_token, memory, further_token)
