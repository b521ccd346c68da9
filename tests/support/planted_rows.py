"""Planted situations: random rows under a known key, with the truth beside them."""

from __future__ import annotations

import numpy as np

from triparty.common.wire import bfloat16_to_float32, float32_to_bfloat16
from triparty.developer.audit import Knowledge
from triparty.developer.audit.claims import Matrix, Rows, Truth
from triparty.developer.audit.knowledge import KnownRows, Table

VOCABULARY, WIDTH, POSITIONS = 400, 48, 64


def rotation(width: int, expanded: int | None = None, *, seed: int = 0) -> Matrix:
    """(width, expanded) a random isometry."""
    square = np.random.default_rng(seed).normal(size=(expanded or width, expanded or width))
    return np.linalg.qr(square)[0][:width]


def signed_permutation(width: int, *, seed: int = 0) -> Matrix:
    """(width, width) a random one."""
    rng = np.random.default_rng(seed)
    return np.eye(width)[:, rng.permutation(width)] * rng.choice([-1.0, 1.0], width)


def rounded(rows: Rows) -> Rows:
    """Rows as a wire of bf16 rounds them."""
    return bfloat16_to_float32(float32_to_bfloat16(rows))


def planted(
    key: Matrix,
    *,
    positions: bool = False,
    noise: float = 0.0,
    texts: int = 8,
    length: int = 40,
    known: int = 0,
    vocabulary: int = VOCABULARY,
) -> tuple[Knowledge, Truth]:
    """Sessions that begin with half of a text and go on by the token, under a key.

    Args:
        key: (d, D).
        positions: whether places are added.
        noise: share of a row's length that is noise.
        texts: how many sessions.
        length: tokens in each.
        known: of how many different rows the plaintext is known.
        vocabulary: how many tokens there are.
    """
    rng = np.random.default_rng(5)
    width = len(key)
    rows = rng.normal(size=(vocabulary, width)).astype(np.float32)
    placed = rng.normal(size=(POSITIONS, width)).astype(np.float32) if positions else None
    requests, truth, plain_rows = [], [], []
    for _ in range(texts):
        ids = np.minimum(rng.zipf(1.3, size=length) - 1, vocabulary - 1)
        plain = rows[ids] if placed is None else rows[ids] + placed[:length]
        keyed = plain @ key
        spread = noise * np.linalg.norm(keyed, axis=1, keepdims=True) / np.sqrt(key.shape[1])
        keyed = (keyed + spread * rng.normal(size=keyed.shape)).astype(np.float32)
        for part in (
            slice(0, length // 2),
            *(slice(i, i + 1) for i in range(length // 2, length)),
        ):
            requests.append(keyed[part])
            truth.append(ids[part])
            plain_rows.append(plain[part])
    everything = np.concatenate(plain_rows), np.concatenate(requests)
    first = np.sort(np.unique(everything[0], axis=0, return_index=True)[1])[:known]
    return (
        Knowledge(
            tuple(requests),
            known=KnownRows(everything[1][first], everything[0][first]) if known else None,
            table=Table(rows, placed),
        ),
        Truth(tuple(truth), rows.astype(np.float64), key, np.arange(vocabulary), {}),
    )
