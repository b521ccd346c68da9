"""Losses on pairs of inputs (torch); label 1 where two results differ, small = reusable."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

MARGIN = 1.0  # the published code's


def pair_loss(keys: Tensor, bias: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy over all pairs of a batch, equal and different ones counting the same.

    Args:
        keys: (n, tasks, width) as `FilterNetwork.keys` makes them.
        bias: (tasks,) of the classifier.
        labels: (n, tasks) equal numbers for equal results.

    Returns:
        The mean over tasks; 0 for a task whose batch has one label alone.
    """
    first, second = torch.triu_indices(len(keys), len(keys), offset=1)
    total = keys.sum() * 0.0
    for task in range(labels.shape[1]):
        column = labels[:, task]
        differs = (column[first] != column[second]).to(torch.float32)
        share = differs.mean()
        if not 0.0 < float(share) < 1.0:
            continue
        logits = torch.cdist(keys[:, task], keys[:, task], p=1.0)[first, second] + bias[task]
        weight = torch.where(differs > 0, 0.5 / share, 0.5 / (1.0 - share))
        total = total + functional.binary_cross_entropy_with_logits(
            logits, differs, weight=weight
        )
    return total / labels.shape[1]


def contrastive_loss(distance: Tensor, differs: Tensor) -> Tensor:
    """The published loss, (1 - y) d^2 + y max(margin - d, 0)^2 (thesis 3.4.3).

    Args:
        distance: (n,) of pairs, 0 to 1.
        differs: (n,) 1 where the results differ.
    """
    apart = (MARGIN - distance).clamp(min=0.0)
    return ((1.0 - differs) * distance**2 + differs * apart**2).mean()
