"""The process that `device_process` measures: it loads what a device does, and nothing else."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

TOKENS = 64


def main(model: str, prompt: str, home: Path) -> None:
    """One answer; prints its figures."""
    import triparty.common.cli
    import triparty.device.cli  # noqa: F401 what the command loads
    from triparty.device import Device

    parts = Device(home).stream(model, prompt, max_tokens=TOKENS, ignore_eos=True)
    next(parts)
    first = time.process_time()
    for count, _ in enumerate(parts, start=1):
        last = count
    figures = {
        "first_token_cpu_s": first,
        "token_cpu_ms": 1000 * (time.process_time() - first) / last,
        "beyond_table_mb": _peak_mb() - _mapped_mb(".safetensors"),
    }
    print(json.dumps(figures))


def _peak_mb() -> float:
    """The largest resident memory of this process; `ru_maxrss` counts its parent's too."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    (line,) = [line for line in status.splitlines() if line.startswith("VmHWM:")]
    return int(line.split()[1]) / 1024


def _mapped_mb(ending: str) -> float:
    """Resident memory of the mapped files with this ending."""
    total, counts = 0, False
    for line in Path("/proc/self/smaps").read_text(encoding="utf-8").splitlines():
        name, _, rest = line.partition(" ")
        if not name.endswith(":"):
            counts = line.endswith(ending)
        elif counts and name == "Rss:":
            total += int(rest.split()[0])
    return total / 1024


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
