"""A small network that predicts how wrong a link is (Yoo & Kweon, "Learning Loss", 2019).

It looks at the link's last hidden activation and is trained on pairs: of two samples, the one
that lost more shall score higher by a margin. The link itself does not feel it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from triparty.common.errors import DatasetError
from triparty.common.links.link import Link
from triparty.common.links.specs import Outputs

WIDTH: Final = 16
MARGIN: Final = 1.0
_STEPS: Final = 150
_RATE: Final = 0.01
_LEAST_ROWS: Final = 4

Matrix = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class LossHead:
    """A head for one link.

    Attributes:
        hidden: (`WIDTH`, w) weights and (`WIDTH`,) bias on the scaled activation.
        output: (`WIDTH`,) weights; the score's level means nothing.
        mean: (w,) of the activation.
        scale: (w,) its deviation.
    """

    hidden: tuple[Matrix, Matrix]
    output: Matrix
    mean: Matrix
    scale: Matrix

    def predict(self, link: Link, outputs: Outputs) -> Matrix:
        """(n,) higher where the link is likely to be more wrong.

        Args:
            link: that the head was trained for.
            outputs: (n, ...) of the link's source.
        """
        weight, bias = self.hidden
        scaled = (link.hidden(outputs) - self.mean) / self.scale
        scores: Matrix = np.maximum(scaled @ weight.T + bias, 0) @ self.output
        return scores


def fit_loss_head(link: Link, source: Outputs, target: Outputs, *, seed: int = 0) -> LossHead:
    """Trains a head (torch).

    Args:
        link: to a vector; stays as it is.
        source: (n, ...) outputs of its source.
        target: (n, width) what the target said of the same inputs.
        seed: of weights and pairs.

    Raises:
        DatasetError: fewer than 4 rows.
    """
    import torch
    from torch.nn import functional

    from triparty.common.links.losses import row_losses

    if len(source) < _LEAST_ROWS:
        raise DatasetError(f"a loss head learns from {_LEAST_ROWS} rows or more: {len(source)}")
    spec = link.design.target
    losses = row_losses(
        spec, torch.from_numpy(link.logits(source)), torch.from_numpy(target),
        torch.from_numpy(np.maximum(target.std(axis=0), 1e-3).astype(np.float32)),
    )  # fmt: skip
    activation = link.hidden(source)
    mean, scale = activation.mean(axis=0), np.maximum(activation.std(axis=0), 1e-3)
    inputs = torch.from_numpy((activation - mean) / scale)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        first = torch.nn.Linear(inputs.shape[1], WIDTH)
        last = torch.nn.Linear(WIDTH, 1, bias=False)
        optimizer = torch.optim.Adam([*first.parameters(), *last.parameters()], lr=_RATE)
        for _ in range(_STEPS):
            order = torch.randperm(len(inputs))
            half = len(order) // 2
            one, other = order[:half], order[half : 2 * half]
            scores = last(functional.relu(first(inputs)))[:, 0]
            sign = torch.sign(losses[one] - losses[other])
            gap = MARGIN - sign * (scores[one] - scores[other])
            optimizer.zero_grad()
            torch.autograd.backward((gap.clamp(min=0) * sign.abs()).mean())
            optimizer.step()
    weight, bias = (one.detach().numpy().copy() for one in (first.weight, first.bias))
    return LossHead((weight, bias), last.weight.detach().numpy()[0].copy(), mean, scale)
