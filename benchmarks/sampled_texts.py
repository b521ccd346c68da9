"""Text as a model writes it: tokens sampled from itself, kept under `build/` once made."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.harness import ROOT

LENGTH = 128
BATCH = 512
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
        texts = _sampled(source, -(-tokens // LENGTH), seed)
        FOLDER.mkdir(parents=True, exist_ok=True)
        np.save(file, texts)
    return np.asarray(np.load(file), np.int64)


def _sampled(source: Path, count: int, seed: int) -> NDArray[np.int64]:
    """Texts in batches, each token drawn from the model's own distribution."""
    import torch

    from triparty.developer.stock import load_model

    model = load_model(source)
    draw = torch.Generator().manual_seed(seed)
    texts = []
    with torch.inference_mode():
        for start in range(0, count, BATCH):
            ids = torch.full((min(BATCH, count - start), 1), model.config.bos_token_id)
            columns, cache = [ids], None
            for _ in range(LENGTH - 1):
                output = model(input_ids=columns[-1], past_key_values=cache, use_cache=True)
                cache = output.past_key_values
                odds = torch.softmax(output.logits[:, -1].float(), dim=-1)
                columns.append(torch.multinomial(odds, 1, generator=draw))
            texts.append(torch.cat(columns, dim=1).numpy())
    return np.concatenate(texts)
