"""The device's part.

1. Enrol with the developer's code (once).
2. Wait for the grant, then get the bundle.
3. Say something; print the answer as it arrives.
4. Say the next thing, with everything that was said before; and so on.
"""

import sys
import time
from pathlib import Path

from triparty.common.errors import NotFoundError
from triparty.device import Device, Generation

PATIENCE_S = 120
TOKENS = 40


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


def answer(device: Device, messages: list[dict[str, str]]) -> str:
    """What the model says to a conversation; printed as it arrives."""
    for part in device.stream("assistant", messages, max_tokens=TOKENS):
        if isinstance(part, Generation):
            print(f"\n[{len(part.token_ids)} tokens in {part.seconds:.1f} s]", flush=True)
            return part.text
        print(part.text, end="", flush=True)
    raise AssertionError("an answer ends with the whole of it")


def main(home: Path, *turns: str) -> None:
    """Says one turn after the other."""
    device = Device(home)
    if not home.exists():
        device.enroll(input("the developer's code: "))
    wait_for_grant(device)
    messages: list[dict[str, str]] = []
    for turn in turns:
        print(f"> {turn}")
        messages.append({"role": "user", "content": turn})
        messages.append({"role": "assistant", "content": answer(device, messages)})


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
