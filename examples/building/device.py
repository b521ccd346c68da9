"""The gateway's part, on a box in the building.

1. Enrol with the developer's code (once), wait for the grant, get the bundle.
2. Make films of a building, in the place of cameras (once).
3. Watch them for a while: gate, decode, detector, events.
4. Ask about them; print the answer and what it rests on.
"""

import subprocess
import sys
import time
from pathlib import Path

from triparty.common.errors import NotFoundError
from triparty.device import Device

PATIENCE_S = 120
MODEL = "sentences"


def triparty(*words: str | Path) -> None:
    """Runs a command of the device; what it prints is seen."""
    command = [sys.executable, "-m", "triparty.common", "device", *map(str, words)]
    subprocess.run(command, check=True)


def wait_for_grant(device: Device) -> None:
    """Returns when the developer has granted the encoder."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            device.pull()
        except NotFoundError:
            if time.monotonic() > deadline:
                raise
            time.sleep(1)
        else:
            return


def main(home: Path, detector: Path, question: str, seconds: str = "20") -> None:
    """Watches, and asks one question."""
    device = Device(home)
    if not home.exists():
        device.enroll(input("the developer's code: "))
    wait_for_grant(device)
    site = home / "building"
    if not site.exists():
        triparty("example-site", site, "--detector", detector, "--model", MODEL)
    triparty("watch", site / "watch.toml", "--seconds", seconds, "--home", home)
    asked = ("--watch", site / "watch.toml", "--home", home, "--why", "--privacy")
    triparty("ask", question, *asked)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:])
