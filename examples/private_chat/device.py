"""The device's part.

1. Enrol with the developer's code (once).
2. Wait for the grant, then get the bundle.
3. Ask; print the answer as it arrives.
"""

import sys
import time
from pathlib import Path

from triparty.common.errors import NotFoundError
from triparty.device import Device, Generation

PATIENCE_S = 120


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


def main(home: Path, prompt: str) -> None:
    """Asks one question."""
    device = Device(home)
    if not home.exists():
        device.enroll(input("the developer's code: "))
    wait_for_grant(device)
    print(prompt, end="")
    for part in device.stream("assistant", prompt, max_tokens=40):
        if isinstance(part, Generation):
            print(f"\n[{len(part.token_ids)} tokens in {part.seconds:.1f} s]")
        else:
            print(part.text, end="", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
