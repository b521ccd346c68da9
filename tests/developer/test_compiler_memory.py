"""The compiler's memory does not grow with the model."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

RUN = """
import sys
from pathlib import Path
from triparty.developer.protect import Choices, protect
protect(sys.argv[1], Path(sys.argv[2]), choices=Choices.of(scheme=sys.argv[3]))
status = Path("/proc/self/status").read_text()
print(status.partition("VmHWM:")[2].split()[0])
"""  # ru_maxrss of a child begins with what its parent had at the fork


def peak_bytes(source: Path, out: Path, scheme: str) -> int:
    ended = subprocess.run(
        [sys.executable, "-c", RUN, str(source), str(out), scheme],
        env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    return int(ended.stdout) * 1024


@pytest.mark.skipif(
    not Path("/proc/self/status").exists(), reason="only Linux tells a process's peak"
)
@pytest.mark.parametrize("scheme", ["permutation", "orthogonal"])
def test_more_layers_take_no_more_memory(scheme: str, make_model: Any, tmp_path: Path) -> None:
    peaks = []
    for layers in (1, 24):
        source = make_model(
            "llama",
            hidden_size=512,
            intermediate_size=2000,
            num_hidden_layers=layers,
            vocab_size=1000,
        )
        size = (source / "model.safetensors").stat().st_size
        peaks.append(peak_bytes(source, tmp_path / f"{layers}", scheme))
    # A layer more in memory, as it is stored, would add 14 MB: 23 of them 330 MB.
    assert size > 300_000_000
    assert peaks[1] < peaks[0] + 50_000_000
    assert peaks[1] < 3 * 4 * 2000 * 512 + 500_000_000
