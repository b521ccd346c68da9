"""The weights of an ensemble's links, learnt with sources left out at random (torch).

Links are weighed by what they said of rows that they had not seen (`Fitted.predicted`): on the
rows that they learnt from, the one that learnt them by heart would weigh most.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from triparty.common.errors import DatasetError
from triparty.common.links.ensemble import Ensemble, Member
from triparty.common.links.features import activate
from triparty.common.links.losses import row_losses
from triparty.common.links.metrics import agreement
from triparty.common.links.recipe import Recipe
from triparty.common.links.specs import Outputs, OutputSpec, Seq, Vec
from triparty.common.links.training import Fitted

_STEPS: Final = 200
_RATE: Final = 0.05
_MOST_ROWS: Final = 2000
_REST: Final = 1e-4  # of the weight of links beside one that does better alone
_SHARPNESS: Final = 8.0  # how fast the weight of a sequence's link rises with its agreement

Stack = NDArray[Any]


def weigh(spec: Vec, predicted: Stack, said: Outputs, recipe: Recipe) -> tuple[float, ...]:
    """Weights that sum to 1, for any subset of links whose weights are made to sum to 1.

    Args:
        spec: of the target.
        predicted: (links, n, width) logits.
        said: (n, width) by the target itself.
        recipe: its source dropout and seed.
    """
    count = len(predicted)
    if count == 1:
        return (1.0,)
    rng = np.random.default_rng(recipe.seed)
    rows = rng.permutation(len(said))[:_MOST_ROWS]
    logits = torch.from_numpy(np.ascontiguousarray(predicted[:, rows]))
    wanted = torch.from_numpy(said[rows])
    scale = torch.from_numpy(np.maximum(said.std(axis=0), 1e-3).astype(np.float32))
    free = torch.zeros(count, requires_grad=True)
    optimizer = torch.optim.Adam([free], lr=_RATE)
    for _ in range(_STEPS):
        is_there = torch.from_numpy(_left(count, len(rows), recipe.source_dropout, rng))
        weight = functional.softplus(free)[:, None] * is_there
        share = weight / weight.sum(dim=0, keepdim=True)
        mixed = (logits * share[:, :, None]).sum(dim=0)
        optimizer.zero_grad()
        loss = row_losses(spec, mixed, wanted, scale).mean()
        torch.autograd.backward(loss)
        optimizer.step()
    found = functional.softplus(free.detach()).numpy().astype(np.float64)
    return tuple(float(one) for one in found / found.sum())


def _left(
    count: int, rows: int, dropout: float, rng: np.random.Generator
) -> NDArray[np.float32]:
    """(links, rows) 1 where a source is there, at least one in each row."""
    is_there = rng.random((count, rows)) >= dropout
    is_there[rng.integers(count, size=rows), np.arange(rows)] = True
    return is_there.astype(np.float32)


def fitted_ensemble(
    name: str,
    spec: OutputSpec,
    fitted: Mapping[str, Fitted],
    target: Outputs,
    recipe: Recipe,
) -> Ensemble:
    """The ensemble of links to one target that were trained on the same rows.

    Args:
        name: of the target.
        spec: of its output.
        fitted: the links by source, trained with `recipe`.
        target: (n, ...) its outputs on the rows that they were trained on.
        recipe: as theirs.

    Raises:
        DatasetError: links that held out different rows.
    """
    links = list(fitted.values())
    if any(not np.array_equal(one.held, links[0].held) for one in links):
        raise DatasetError("links of an ensemble must be trained on the same rows and recipe")
    said = target[links[0].held]
    if isinstance(spec, Seq):
        weights = _sequence_weights([one.agreement for one in links])
        expected = max(one.agreement for one in links)
    else:
        stack = np.stack([one.predicted for one in links])
        weights, expected = _mixture(spec, stack, said, recipe)
    members = tuple(
        Member(source, one.link, weight)
        for (source, one), weight in zip(fitted.items(), weights, strict=True)
    )
    return Ensemble(name, spec, members, expected)


def joined_ensemble(
    name: str,
    members: Sequence[Member],
    outputs: Mapping[str, Outputs],
    target: Outputs,
    recipe: Recipe,
) -> Ensemble:
    """The ensemble of links that are there already, such as a local and a global one.

    Args:
        name: of the target.
        members: their weights are ignored.
        outputs: (n, ...) of the sources, on rows that the links have not learnt from.
        target: (n, ...) of the target on the same rows.
        recipe: its source dropout and seed.
    """
    spec = members[0].link.design.target
    if isinstance(spec, Seq):
        found = [
            float(agreement(spec, one.link.predict(outputs[one.source]), target).mean())
            for one in members
        ]
        weights, expected = _sequence_weights(found), max(found)
    else:
        stack = np.stack([one.link.logits(outputs[one.source]) for one in members])
        weights, expected = _mixture(spec, stack, target, recipe)
    made = tuple(
        Member(one.source, one.link, weight)
        for one, weight in zip(members, weights, strict=True)
    )
    return Ensemble(name, spec, made, expected)


def _mixture(
    spec: Vec, predicted: Stack, said: Outputs, recipe: Recipe
) -> tuple[tuple[float, ...], float]:
    """Weights, and how well the mixture agrees: never worse than its best link alone.

    Where it would be, that link decides, and the others are weighed for when it is absent.
    """
    weights = np.array(weigh(spec, predicted, said, recipe))
    mixed = np.tensordot(weights.astype(np.float32), predicted, axes=1)
    together = float(agreement(spec, activate(spec, mixed), said).mean())
    alone = [float(agreement(spec, activate(spec, one), said).mean()) for one in predicted]
    best = int(np.argmax(alone))
    if alone[best] <= together:
        return tuple(weights.tolist()), together
    weights *= np.where(np.arange(len(weights)) == best, 1.0, _REST)
    weights[best] = max(weights[best], 1.0)
    return tuple((weights / weights.sum()).tolist()), alone[best]


def _sequence_weights(found: Sequence[float]) -> tuple[float, ...]:
    raised = np.exp(_SHARPNESS * (np.array(found) - max(found)))
    return tuple(float(one) for one in raised / raised.sum())
