"""The device's part.

1. Enrol with the developer's code (once).
2. Wait for the grant, then get the bundle.
3. Draw pictures, as a camera would take them; nobody else has them.
4. Have them named: their pixels leave keyed, the answers come back keyed.
"""

import random
import sys
import time
from pathlib import Path

from shapes import LABELS, drawn

from triparty.common.errors import NotFoundError
from triparty.device import Device

PATIENCE_S = 120
PICTURES = 6


def wait_for_grant(device: Device) -> None:
    """Returns when the developer has granted a model."""
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


def take_pictures(folder: Path) -> list[Path]:
    """Files whose names say what is on them."""
    dice, files = random.Random(), []
    folder.mkdir(exist_ok=True)
    for number in range(PICTURES):
        label = LABELS[number % len(LABELS)]
        files.append(folder / f"{number}-{label}.png")
        drawn(label, dice).save(files[-1])
    return files


def main(home: Path, folder: Path) -> None:
    """Names the pictures of a folder."""
    device = Device(home)
    if not home.exists():
        device.enroll(input("the developer's code: "))
    wait_for_grant(device)
    files = take_pictures(folder)
    for file, found in zip(files, device.classify("shapes", files), strict=True):
        print(f"{file.name}: {found.label} ({found.score:.0%})")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
