"""Checkpoints that are a little different: a base that was trained on, a noisy instance."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np


def drifted(source: Path, folder: Path, share: float, *, seed: int = 0) -> Path:
    """Copies a checkpoint with Gaussian noise on every tensor.

    Args:
        source: the checkpoint.
        folder: of the copy, which must not exist.
        share: of each tensor's root mean square that the noise's deviation is.
        seed: of the noise.
    """
    from safetensors.numpy import load_file, save_file

    shutil.copytree(source, folder, copy_function=shutil.copyfile)
    rng = np.random.default_rng(seed)
    for path in sorted(folder.glob("*.safetensors")):
        tensors = load_file(path)
        for name, values in tensors.items():
            if values.dtype.kind == "f":
                spread = share * np.sqrt(np.square(values, dtype=np.float64).mean())
                noise = spread * rng.normal(size=values.shape)
                tensors[name] = (values + noise).astype(values.dtype)
        save_file(tensors, path, {"format": "pt"})
    return folder
