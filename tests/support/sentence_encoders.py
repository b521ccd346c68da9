"""A trained sentence encoder: MiniLM where it is installed, else the small example."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from three_parties import triparty

from triparty.common.demo_site import PACKAGE


def sentence_encoder(folder: Path, *options: str) -> Path:
    """The folder of MiniLM; without it, `folder` with an encoder trained there.

    Args:
        folder: that does not exist yet.
        options: of `triparty developer example-encoder`.
    """
    found = find_spec(PACKAGE)
    if found is not None and found.origin is not None:
        return Path(found.origin).parent / "model"
    triparty("developer", "example-encoder", folder, *options)
    return folder
