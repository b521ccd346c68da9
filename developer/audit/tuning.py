"""A model trained on by its developer: to bear noise, or to leave the public table.

The student learns the teacher's distributions (Hinton et al., arXiv:1503.02531) on the
teacher's own texts, with the noise on its rows that devices will add.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from triparty.developer.stock import load_model, quiet

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

_BATCH, _LENGTH = 16, 64
LEARNING_RATE = 2e-3
SEED = 11


def tuned(
    source: Path,
    out: Path,
    texts: NDArray[np.int64],
    *,
    noise: float = 0.0,
    table: float = 0.0,
    steps: int = 300,
) -> Path:
    """Writes the model of `source`, trained on for some steps, to a new folder.

    Args:
        source: a causal language model that embeds token ids by one table.
        out: the folder.
        texts: (n, T) token ids to train on, T at least 2; none that the result is judged by.
        noise: on rows while it learns, as a share of each row's root mean square.
        table: how far the embedding table is moved before, as a share of its rows' root mean
            square, in a random direction.
        steps: of training.
    """
    import torch

    teacher, student = load_model(source), load_model(source)
    for weight in student.parameters():
        weight.requires_grad_(True)
    with torch.random.fork_rng():
        torch.manual_seed(SEED)
        embedding = embedding_of(student)
        with torch.no_grad():
            size = embedding.square().mean(dim=1, keepdim=True).sqrt()
            embedding += table * size * torch.randn_like(embedding)
        optimizer = torch.optim.AdamW(student.parameters(), lr=LEARNING_RATE, weight_decay=0.0)
        rng = np.random.default_rng(SEED)
        for step in range(steps):
            for group in optimizer.param_groups:
                group["lr"] = LEARNING_RATE * (0.02 + 0.98 * (1 - step / steps))
            picked = texts[rng.integers(0, len(texts), _BATCH), :_LENGTH]
            ids = torch.from_numpy(picked)
            rows = embedding[ids]
            size = rows.detach().square().mean(dim=-1, keepdim=True).sqrt()
            rows = rows + noise * size * torch.randn_like(rows)
            with torch.no_grad():
                wanted = teacher(input_ids=ids).logits.log_softmax(dim=-1)
            said = student(inputs_embeds=rows).logits.log_softmax(dim=-1)
            loss = (wanted.exp() * (wanted - said)).sum(dim=-1).mean()
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(student.parameters(), 1.0)
            optimizer.step()
    with quiet():
        student.save_pretrained(out)
    for file in source.glob("tokenizer*"):
        shutil.copy(file, out / file.name)
    return out


def embedding_of(model: PreTrainedModel) -> torch.Tensor:
    """(V, d) the weights of a model's embedding table."""
    weight: torch.Tensor = model.get_input_embeddings().get_parameter("weight")
    return weight
