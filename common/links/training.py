"""Training links from recorded outputs (torch; the extra `train`).

A link to a vector begins as the constant predictor (an identity link: as no link at all) and
goes on only as far as rows that were held out get better. If their agreement does not grow by
more than its standard error, it stays what it was at the beginning: a link never does harm
that the rows could have shown. How far is found on folds; the link is then trained on all rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from triparty.common.errors import DatasetError
from triparty.common.links.design import LinkDesign
from triparty.common.links.features import LEAST_SHARE, Floats, activate, constant, features
from triparty.common.links.forward import Weights
from triparty.common.links.link import Link, check_weights
from triparty.common.links.losses import row_losses
from triparty.common.links.metrics import agreement
from triparty.common.links.networks import LinkNetwork, network_inputs
from triparty.common.links.recipe import LEAST_ROWS, Recipe
from triparty.common.links.specs import Outputs, Seq, Vec

_LEAST_SCALE: Final = 1e-3
_LEAST_BATCH: Final = 4
_LEAST_STEPS: Final = 8  # a pass, where there are rows enough
_PROGRESS: Final = 1e-5
_ROUND: Final = 4096  # rows whose loss is computed at once

Rows = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Fitted:
    """A trained link and what rows held out say of it.

    Attributes:
        link: trained on all rows.
        epochs: passes; 0 where the guard kept what it began as.
        held: rows that were held out, each once.
        predicted: (len(held), ...) logits there, of a link that had not seen them; of a
            sequence, tokens.
        agreement: with the target on them, 0 to 1.
        floor: the same of what the link began as.
    """

    link: Link
    epochs: int
    held: Rows
    predicted: Outputs
    agreement: float
    floor: float

    @property
    def is_kept_back(self) -> bool:
        """Whether training made nothing better, so that the link is what it began as."""
        return not self.epochs


def fit_link(
    design: LinkDesign,
    source: Outputs,
    target: Outputs,
    recipe: Recipe,
    *,
    start: Weights | None = None,
) -> Fitted:
    """Trains a link.

    Args:
        design: of the link.
        source: (n, ...) outputs of the source, as `check_outputs` returns them.
        target: (n, ...) of the target on the same inputs.
        recipe: how.
        start: weights to go on from, scaling included; None begins as the constant predictor,
            or as no link.

    Raises:
        DatasetError: fewer than `LEAST_ROWS` rows, or not as many on both sides.
        CheckpointError: `start` is of another design.
    """
    if len(source) != len(target) or len(source) < LEAST_ROWS:
        raise DatasetError(
            f"a link learns from at least {LEAST_ROWS} rows of source and target, got "
            f"{len(source)} and {len(target)}"
        )
    if start is not None:
        start = check_weights(design, start)
    with torch.random.fork_rng(devices=[]):
        parts = _parts(len(source), recipe)
        trials = []
        for number, held in enumerate(parts):
            learned = np.setdiff1d(np.arange(len(source)), held)
            course = replace(recipe, seed=recipe.seed + 1000 * (number + 1))
            trial = _Descent(design, source[learned], target[learned], course, start)
            trial.search(source[held], target[held])
            trials.append(trial)
        rows = np.concatenate(parts)
        said = target[rows]
        first = np.concatenate([one.first for one in trials])
        best = np.concatenate([one.best for one in trials])
        floor = agreement(design.target, _outputs(design, first), said)
        gained = agreement(design.target, _outputs(design, best), said)
        epochs = round(float(np.median([one.best_epoch for one in trials])))
        if not epochs or not _is_better(gained, floor):
            epochs, best, gained = 0, first, floor
        last = _Descent(design, source, target, recipe, start)
        last.run(epochs)
    link = Link(design, last.network.weights())
    return Fitted(link, epochs, rows, best, float(gained.mean()), float(floor.mean()))


def _parts(count: int, recipe: Recipe) -> list[Rows]:
    order = np.random.default_rng(recipe.seed).permutation(count)
    parts = np.array_split(order, recipe.folds)
    return parts if count <= recipe.few else parts[:1]


def _is_better(gained: NDArray[Any], floor: NDArray[Any]) -> bool:
    """Whether agreement grew by more than the standard error of its growth."""
    growth = gained - floor
    return bool(growth.mean() > growth.std() / len(growth) ** 0.5)


def _outputs(design: LinkDesign, predicted: Outputs) -> Outputs:
    if isinstance(design.target, Vec):
        return activate(design.target, predicted)
    return predicted


class _Descent:
    """A training under way.

    Args:
        design: of the link.
        source: rows to learn from.
        target: what is learnt of them.
        recipe: how.
        start: weights to begin with; None makes them of the rows.
    """

    def __init__(
        self,
        design: LinkDesign,
        source: Outputs,
        target: Outputs,
        recipe: Recipe,
        start: Weights | None,
    ) -> None:
        torch.manual_seed(recipe.seed)
        self.network = LinkNetwork(design, dropout=recipe.dropout)
        weights = {**self.network.weights(), **first_weights(design, source, target)}
        self.network.load(weights if start is None else start)
        self._design, self._recipe = design, recipe
        self._inputs = network_inputs(design, source)
        self._said = torch.from_numpy(target)
        self._began = [one.detach().clone() for one in self.network.parameters()]
        self._batch = min(recipe.batch, max(_LEAST_BATCH, len(target) // _LEAST_STEPS))
        self._optimizer = torch.optim.Adam(
            self.network.parameters(), lr=recipe.rate, fused=True
        )
        self.best_epoch = 0
        self.first: Outputs = np.empty(0)
        self.best: Outputs = np.empty(0)

    def run(self, epochs: int) -> None:
        """So many passes over the rows."""
        self.network.train()
        for _ in range(epochs):
            for rows in torch.split(torch.randperm(len(self._said)), self._batch):
                self._optimizer.zero_grad()
                loss = self._losses(self._inputs[rows], self._said[rows]).mean()
                torch.autograd.backward(loss)
                self._pull_back()
                self._optimizer.step()
        self.network.eval()

    def search(self, source: Outputs, target: Outputs) -> None:
        """Passes until rows held out get no better; what they get at first and at best."""
        inputs, said = network_inputs(self._design, source), torch.from_numpy(target)
        self.first = self.best = self._predicted(source)
        lowest, since, epoch = self._held_loss(inputs, said), 0, 0
        best_weights: Weights | None = None
        while epoch < self._recipe.epochs and since < self._recipe.patience:
            self.run(1)
            epoch, since = epoch + 1, since + 1
            loss = self._held_loss(inputs, said)
            if loss < lowest - _PROGRESS:
                lowest, since, self.best_epoch = loss, 0, epoch
                best_weights = self.network.weights()
        if best_weights is not None:
            self.network.load(best_weights)
            self.best = self._predicted(source)

    def _losses(self, inputs: torch.Tensor, said: torch.Tensor) -> torch.Tensor:
        target = self._design.target
        logits = self.network(inputs, said if isinstance(target, Seq) else None)
        has_scale = "target.scale" in self._design.shapes
        scale = self.network["target.scale"] if has_scale else None
        return row_losses(target, logits, said, scale)

    def _pull_back(self) -> None:
        """Adds the gradient of the squared distance from where training began."""
        for now, then in zip(self.network.parameters(), self._began, strict=True):
            if now.grad is not None:
                now.grad.add_(now.detach() - then, alpha=2 * self._recipe.decay)

    def _held_loss(self, inputs: torch.Tensor, said: torch.Tensor) -> float:
        self.network.eval()
        with torch.no_grad():
            total = sum(
                float(self._losses(one, other).sum())
                for one, other in zip(
                    torch.split(inputs, _ROUND), torch.split(said, _ROUND), strict=True
                )
            )
        return total / len(said)

    def _predicted(self, source: Outputs) -> Outputs:
        """Logits, or tokens of a sequence."""
        link = Link(self._design, self.network.weights())
        if isinstance(self._design.target, Seq):
            return link.predict(source)
        return link.logits(source)


def first_weights(
    design: LinkDesign, source: Outputs, target: Outputs
) -> Mapping[str, NDArray[np.float32]]:
    """Scaling, and the weights with which a link to a vector is the constant predictor.

    Args:
        design: of the link.
        source: (n, ...) rows that will be learnt from.
        target: (n, ...) the same of the target.
    """
    made: dict[str, Floats] = {}
    if design.form == "identity":
        return made
    if isinstance(design.source, Vec):
        seen = features(design.source, source)
        made["source.mean"], made["source.scale"] = seen.mean(0), _deviation(seen)
    if isinstance(design.target, Vec):
        made["output.weight"] = np.zeros((design.target.width, design.width), np.float32)
        made |= _constant_weights(design.target, target)
    return made


def _constant_weights(target: Vec, said: Outputs) -> dict[str, Floats]:
    still = constant(target, said)[0]
    nothing = np.zeros(target.width, np.float32)
    share = np.clip(still, LEAST_SHARE, 1 - LEAST_SHARE)
    match target.task:
        case "single-label":
            return {"output.bias": np.log(share).astype(np.float32)}
        case "multi-label":
            return {"output.bias": (np.log(share) - np.log1p(-share)).astype(np.float32)}
        case "regression":
            return {
                "output.bias": nothing,
                "target.mean": still,
                "target.scale": _deviation(said),
            }
        case "localisation":
            there = said[:, 0] > 0.5
            held = np.clip(there.mean(), 1 / (len(said) + 2), 1 - 1 / (len(said) + 2))
            scale = _deviation(said[there]) if there.any() else np.ones(target.width)
            is_there = np.float32(np.log(held) - np.log1p(-held))
            return {
                "output.bias": np.append(is_there, nothing[1:]).astype(np.float32),
                "target.mean": np.append(0, still[1:]).astype(np.float32),
                "target.scale": np.append(1, scale[1:]).astype(np.float32),
            }


def _deviation(values: Outputs) -> Floats:
    """(width,) at least `_LEAST_SCALE`."""
    deviation: Floats = np.maximum(values.std(axis=0), _LEAST_SCALE).astype(np.float32)
    return deviation
