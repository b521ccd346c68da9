"""The device's part: search in one's own files by meaning.

1. Enrol with the developer's code (once).
2. Wait for the grant, then get the bundle.
3. Cut every text file of a folder into paragraphs.
4. Have the protected encoder turn them into vectors; keep those on this device.
5. Turn the question into a vector in the same way; show the paragraphs most alike.
"""

import sys
import time
from pathlib import Path

import numpy as np

from triparty.common.errors import NotFoundError
from triparty.device import Device

PATIENCE_S = 120
SUFFIXES = (".txt", ".md")
SHOWN = 3


def wait_for_grant(device: Device) -> None:
    """Returns when the developer has granted an encoder."""
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


def paragraphs(folder: Path) -> list[tuple[Path, str]]:
    """Every paragraph of every text file, with its file."""
    files = sorted(file for file in folder.rglob("*") if file.suffix in SUFFIXES)
    return [
        (file, " ".join(part.split()))
        for file in files
        for part in file.read_text(encoding="utf-8", errors="replace").split("\n\n")
        if part.strip()
    ]


def main(home: Path, folder: Path, question: str) -> None:
    """Prints the paragraphs that are most like a question."""
    found = paragraphs(folder)
    if not found:
        sys.exit(f"{folder} has no paragraphs in files named {' or '.join(SUFFIXES)}")
    device = Device(home)
    if not home.exists():
        device.enroll(input("the developer's code: "))
    wait_for_grant(device)
    vectors = device.embed("sentences", [text for _, text in found])
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    likeness = vectors @ device.embed("sentences", [question])[0]
    for at in np.argsort(-likeness)[:SHOWN]:
        file, text = found[at]
        print(f"{likeness[at]:.3f}  {file.relative_to(folder)}: {text[:100]}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
