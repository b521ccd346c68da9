"""Search in one's own files by meaning, with an encoder that never sees them.

1. Cut every text file of a folder into paragraphs.
2. Have the protected encoder turn them into vectors; keep those on this device.
3. Turn the question into a vector in the same way; show the paragraphs most alike.
"""

import sys
from pathlib import Path

import numpy as np

from triparty.device import Device

SUFFIXES = (".txt", ".md")
SHOWN = 3


def paragraphs(folder: Path) -> list[tuple[Path, str]]:
    """Every paragraph of every text file, with its file."""
    files = sorted(file for file in folder.rglob("*") if file.suffix in SUFFIXES)
    return [
        (file, " ".join(part.split()))
        for file in files
        for part in file.read_text(encoding="utf-8", errors="replace").split("\n\n")
        if part.strip()
    ]


def main(home: Path, model: str, folder: Path, question: str) -> None:
    """Prints the paragraphs that are most like a question."""
    found = paragraphs(folder)
    if not found:
        sys.exit(f"{folder} has no paragraphs in files named {' or '.join(SUFFIXES)}")
    device = Device(home)
    vectors = device.embed(model, [text for _, text in found])
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    likeness = vectors @ device.embed(model, [question])[0]
    for at in np.argsort(-likeness)[:SHOWN]:
        file, text = found[at]
        print(f"{likeness[at]:.3f}  {file.relative_to(folder)}: {text[:100]}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]), sys.argv[4])
