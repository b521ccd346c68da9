"""What a labelled stream would take to be right often enough, found by replay."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from triparty.device.gate.fleet import full_rate, spread, tables
from triparty.device.gate.policies import POLICIES, make
from triparty.device.gate.replay import Replay, Settings
from triparty.device.gate.traces import Trace

COPIES = 24
SECONDS = 60.0
SHARES = (0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.65, 0.8)
POLICY = "ours"


@dataclass(frozen=True)
class Saving:
    """What being right takes.

    Attributes:
        accuracy: wanted.
        tolerance_s: delay that is forgiven.
        share: cost as a share of full decode; above 1 if no budget tried was enough.
    """

    accuracy: float
    tolerance_s: float
    share: float


def savings(trace: Trace, *, accuracy: float = 0.9) -> tuple[Saving, ...]:
    """What it takes on copies of one stream that share a budget, without any training.

    Args:
        trace: with results and tasks.
        accuracy: wanted.

    Raises:
        TraceError: nothing to replay.
    """
    known = tables([trace])
    streams = spread(known, COPIES, seed=0)
    scores = []
    for share in SHARES:
        settings = Settings(
            seconds=SECONDS,
            budget_ms=share * full_rate(known, streams) * 0.04,
            leftover=POLICIES[POLICY].leftover,
            warm_up_s=5.0,
        )
        scores.append(Replay(known, streams, make(POLICY), settings).run())
    found = []
    for tolerance in (0.0, 1.0):
        cost = np.array([score.decode_share for score in scores])
        right = np.array([score.mean_accuracy(tolerance) for score in scores])
        found.append(Saving(accuracy, tolerance, needed(cost, right, accuracy)))
    return tuple(found)


def needed(
    cost: np.ndarray[tuple[int], np.dtype[np.float64]],
    accuracy: np.ndarray[tuple[int], np.dtype[np.float64]],
    wanted: float,
) -> float:
    """The least cost at which an accuracy is reached, between measured points by a line.

    Args:
        cost: (n,) of the points.
        accuracy: (n,) of the points.
        wanted: accuracy.

    Returns:
        The cost; infinity if no point reaches it.
    """
    order = np.argsort(cost)
    cost, reached = cost[order], np.maximum.accumulate(accuracy[order])
    above = int(np.searchsorted(reached, wanted, side="left"))
    if above == len(reached):
        return float("inf")
    if above == 0:
        return float(cost[0])
    low, high = reached[above - 1], reached[above]
    part = (wanted - low) / (high - low)
    return float(cost[above - 1] + part * (cost[above] - cost[above - 1]))
