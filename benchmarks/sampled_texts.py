"""Text as a model writes it, in any amount, kept under `build/` once made."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.harness import ROOT
from triparty.developer.audit.plausible import drawn_texts

LENGTH = 128
FOLDER = ROOT / "build" / "sampled-texts"


def sampled_texts(source: Path, tokens: int, *, seed: int) -> NDArray[np.int64]:
    """(N, `LENGTH`) token ids, each text from the begin-of-text token on, at least `tokens`.

    Args:
        source: the folder of a causal model.
        tokens: how many, all texts together.
        seed: other seeds give other texts.
    """
    file = FOLDER / f"{source.name}-{seed}-{tokens}.npy"
    if not file.is_file():
        from triparty.developer.stock import load_model

        texts = drawn_texts(load_model(source), -(-tokens // LENGTH), LENGTH, seed=seed)
        FOLDER.mkdir(parents=True, exist_ok=True)
        np.save(file, texts)
    return np.asarray(np.load(file), np.int64)
