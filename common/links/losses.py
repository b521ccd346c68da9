"""What a link to each kind of output is trained to make small (torch)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from triparty.common.links.specs import PAD, OutputSpec, Seq

_HUBER = 0.5  # deviations below which an error counts by its square


def row_losses(
    spec: OutputSpec, logits: Tensor, said: Tensor, scale: Tensor | None = None
) -> Tensor:
    """(n,) the loss of each row; soft labels are learnt as they are.

    Args:
        spec: of the target.
        logits: (n, width) in the target's units, or (n, length + 1, vocabulary + 1).
        said: (n, width) or (n, length) outputs of the target itself.
        scale: (width,) deviations of numbers and boxes; None takes them as they are.
    """
    if isinstance(spec, Seq):
        return _sequence_losses(spec, logits, said)
    match spec.task:
        case "single-label":
            return -(said * logits.log_softmax(dim=1)).sum(dim=1)
        case "multi-label":
            return _mean(
                functional.binary_cross_entropy_with_logits(logits, said, reduction="none")
            )
        case "regression":
            return _mean(_huber(logits, said, scale))
        case "localisation":
            return _box_losses(logits, said, scale)


def _mean(losses: Tensor) -> Tensor:
    return losses.mean(dim=1)


def _huber(logits: Tensor, said: Tensor, scale: Tensor | None) -> Tensor:
    gap = logits - said if scale is None else (logits - said) / scale
    return functional.smooth_l1_loss(gap, torch.zeros_like(gap), beta=_HUBER, reduction="none")


def _box_losses(logits: Tensor, said: Tensor, scale: Tensor | None) -> Tensor:
    there = said[:, 0]
    told = functional.binary_cross_entropy_with_logits(logits[:, 0], there, reduction="none")
    sides = None if scale is None else scale[1:]
    apart = _huber(logits[:, 1:], said[:, 1:], sides).mean(dim=1)
    return told + there * (apart + 1.0 - generalised_overlap(logits[:, 1:], said[:, 1:]))


def generalised_overlap(one: Tensor, other: Tensor) -> Tensor:
    """(n,) GIoU of boxes (Rezatofighi et al., 2019): IoU, less the empty share of the hull."""
    low, high = torch.minimum(one[:, :2], one[:, 2:]), torch.maximum(one[:, :2], one[:, 2:])
    shared = (
        (torch.minimum(high, other[:, 2:]) - torch.maximum(low, other[:, :2])).clamp(min=0)
    ).prod(dim=1)
    areas = (high - low).prod(dim=1) + (other[:, 2:] - other[:, :2]).prod(dim=1)
    union = (areas - shared).clamp(min=1e-9)
    hull = torch.maximum(high, other[:, 2:]) - torch.minimum(low, other[:, :2])
    around = hull.prod(dim=1).clamp(min=1e-9)
    return shared / union - (around - union) / around


def _sequence_losses(spec: Seq, logits: Tensor, said: Tensor) -> Tensor:
    """Cross-entropy of each token and of the end behind the last one; mean over them."""
    behind = torch.full((len(said), 1), PAD)
    wanted = torch.cat([said, behind], dim=1)
    ends = (wanted != PAD).sum(dim=1, keepdim=True)
    place = torch.arange(wanted.shape[1])
    wanted = torch.where(place == ends, spec.end, wanted)
    losses = functional.cross_entropy(
        logits.transpose(1, 2), wanted, ignore_index=PAD, reduction="none"
    )
    return losses.sum(dim=1) / (ends[:, 0] + 1)
