"""Samples that depend on each other, taken block by block.

Frames of a second, windows of one person, sentences of one author are nearly one sample; a
bound that takes them for independent promises too much. Blocks of them (stretches of time,
scenes, persons) are independent, or nearly. A block's loss is the share of it that is answered
wrongly, a number between 0 and 1 of which nothing else is known. That its mean is below a rate
is shown by betting against it: a stake grows by every block that is better than the rate. If
the rate were reached in truth, the stake would come to 1 / (1 - confidence) times its beginning
with a chance of 1 - confidence at most (Ville, 1939). The bets are those of Waudby-Smith and
Ramdas ("Estimating means of bounded random variables by betting", 2024) as Bates et al. (2021,
proposition 5) use them to control risks. However many inputs they hold, fewer than 32 blocks
show no accuracy of 90 % with a confidence of 95 %.
"""

from __future__ import annotations

from bisect import bisect_left
from functools import lru_cache
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from triparty.common.errors import DatasetError

Blocks = NDArray[np.int64]
Floats = NDArray[np.float64]
_MOST_BLOCKS: Final = 100_000
_QUIET: Final = 5


def blocks_of(values: Any, length: float | None = None) -> Blocks:
    """(n,) the number of each row's block, from 0 in the order of the values.

    Args:
        values: (n,) one for each row; equal ones are a block.
        length: of the stretches into which values that are numbers are parted; None: no part.

    Raises:
        DatasetError: not one value a row, or a value or a length that parts nothing.
    """
    column = np.asarray(values)
    if column.ndim != 1 or not len(column):
        raise DatasetError(f"blocks of shape {column.shape}: expected one value a row")
    if length is not None:
        if column.dtype.kind not in "fiu" or not length > 0:
            raise DatasetError(
                f"stretches of {length} of {column.dtype} values: expected numbers and a "
                "length above 0"
            )
        if not np.isfinite(column).all():
            row = int(np.isfinite(column).argmin())
            raise DatasetError(f"row {row} has a block that is no number")
        column = np.floor((column - column.min()) / length)
    return np.unique(column, return_inverse=True)[1].reshape(-1).astype(np.int64)


def alike_for(values: NDArray[Any]) -> int:
    """For how many rows a series stays like itself; 0 where rows tell nothing of the next.

    The smallest lag after which five autocorrelations in a row are not above what is noise,
    2 sqrt(log10(n) / n): Politis and White, "Automatic block-length selection for the dependent
    bootstrap" (2004). Blocks should last several times as long.

    Args:
        values: (n,) in the order of time.
    """
    series = values.astype(np.float64) - values.mean()
    count, power = len(series), float(np.square(series).sum())
    if power == 0.0 or count < 2 * _QUIET:
        return 0
    noise = 2.0 * np.sqrt(np.log10(count) / count)
    quiet = 0
    for lag in range(1, count // 2):
        is_quiet = abs(float(series[lag:] @ series[:-lag])) / power <= noise
        quiet = quiet + 1 if is_quiet else 0
        if quiet == _QUIET:
            return lag - _QUIET
    return count // 2


def drawn_blocks(blocks: Blocks, share: float, seed: int) -> NDArray[np.bool_]:
    """(n,) whether a row is in one of the blocks that are drawn at random, whole ones.

    Args:
        blocks: (n,) of the rows.
        share: of the blocks.
        seed: of the draw.
    """
    numbers = np.unique(blocks)
    count = max(1, round(share * len(numbers)))
    drawn = np.random.default_rng(seed).permutation(numbers)[:count]
    return np.asarray(np.isin(blocks, drawn))


def first_half(blocks: Blocks | None, count: int) -> NDArray[np.bool_]:
    """(n,) whether a row is in the first half: of the blocks where there are any, else of rows.

    Args:
        blocks: (n,) of the rows, or None.
        count: of the rows.
    """
    if blocks is None:
        return np.arange(count) < count // 2
    numbers = np.unique(blocks)
    return np.asarray(np.isin(blocks, numbers[: len(numbers) // 2]))


def per_block(wrong: NDArray[Any], blocks: Blocks) -> tuple[Floats, Floats]:
    """(blocks,) how many rows of each are wrong, and how many there are."""
    count = int(blocks.max()) + 1
    wrongs = np.bincount(blocks, weights=wrong.astype(np.float64), minlength=count)
    sizes: Floats = np.bincount(blocks, minlength=count).astype(np.float64)
    is_there = sizes > 0
    return np.asarray(wrongs[is_there], np.float64), sizes[is_there]


def blocks_show(
    wrong: Floats, sizes: Floats, target_accuracy: float, confidence: float
) -> NDArray[np.bool_]:
    """(...,) whether blocks show that the accuracy is at least the target.

    Args:
        wrong: (..., blocks) how many rows of each block are answered wrongly.
        sizes: (blocks,) how many rows each has.
        target_accuracy: to be shown.
        confidence: with which.
    """
    count, rate = len(sizes), 1.0 - target_accuracy
    weight = sizes / sizes.max()
    losses = rate + weight * (wrong / sizes - rate)  # a small block moves the stake less
    steps = np.arange(1, count + 1)
    means = (0.5 + np.cumsum(losses, axis=-1)) / (1 + steps)
    spreads = (0.25 + np.cumsum(np.square(losses - means), axis=-1)) / (1 + steps)
    known = np.concatenate([np.full((*losses.shape[:-1], 1), 0.25), spreads[..., :-1]], axis=-1)
    least = 1.0 - confidence
    bets = np.minimum(1.0, np.sqrt(2.0 * np.log(1.0 / least) / (count * known)))
    stakes = np.cumsum(np.log1p(-bets * (losses - rate)), axis=-1)
    return np.asarray(stakes.max(axis=-1) >= -np.log(least))


@lru_cache(maxsize=256)
def least_blocks(target_accuracy: float, confidence: float) -> int:
    """How many blocks without a wrong answer show the target."""
    return 1 + bisect_left(
        range(1, _MOST_BLOCKS),
        True,
        key=lambda count: bool(
            blocks_show(np.zeros(count), np.ones(count), target_accuracy, confidence)
        ),
    )
