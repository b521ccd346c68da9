"""The passes of a training, which can be left after any batch and taken up again (torch).

Law: a training that is left and taken up, however often, ends in the same weights bit for bit
as one that is not, on a CPU. So a state holds all that the next batch depends on: weights,
optimiser, both random generators, and the place in the pass that is under way.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from triparty.common.errors import CheckpointError
from triparty.common.nets.course import Course
from triparty.common.nets.losses import contrastive_loss, pair_loss
from triparty.common.nets.network import FilterNetwork
from triparty.common.nets.samples import Inputs, Samples

_LARGEST_TRIED: Final = 512  # inputs whose pairs say how well a distance does
_PROGRESS: Final = 1e-5
_FACTS: Final = ("epochs", "since", "best_loss", "position", "sum", "random")


@dataclass(frozen=True)
class Epoch:
    """How far training is.

    Attributes:
        number: of passes made, from 1.
        loss: on the samples held out.
        is_best: whether no pass before was better.
        training_loss: the mean over the pass, on the samples learnt from.
    """

    number: int
    loss: float
    is_best: bool
    training_loss: float


@dataclass(frozen=True, eq=False)
class TrainingState:
    """All that the rest of a training depends on.

    Attributes:
        tensors: weights, best weights, the optimiser's, torch's generator, the pass's order.
        facts: numbers and texts beside them; JSON values.
    """

    tensors: Mapping[str, NDArray[Any]]
    facts: Mapping[str, Any]


class Descent:
    """A training under way.

    Args:
        network: trained in place.
        learned: samples to learn from.
        tried: samples on which progress is measured.
        course: how.
        rng: of order and pairs; torch's own generator draws what is left out.
    """

    def __init__(
        self,
        network: FilterNetwork,
        learned: Samples,
        tried: Samples,
        course: Course,
        rng: np.random.Generator,
    ) -> None:
        """Stands before the first pass."""
        self._network, self._learned, self._tried = network, learned, tried
        self._course, self._rng = course, rng
        # The constants of Keras' RMSprop, with which the published filters were trained.
        self._optimizer: Any = torch.optim.RMSprop(
            network.parameters(), lr=course.rate, alpha=0.9, eps=1e-7
        )
        self._model: Any = network
        self._backward: Callable[[Tensor], None] = torch.autograd.backward
        if course.accelerated:
            from accelerate import Accelerator  # type: ignore[import-untyped]

            accelerator = Accelerator()
            self._model, self._optimizer = accelerator.prepare(network, self._optimizer)
            self._backward = accelerator.backward
        self._best, self.loss, self._since = _weights(network), float("inf"), 0
        self.epochs = 0
        self._order: NDArray[np.int64] = np.empty(0, np.int64)  # of the pass under way
        self._position, self._sum = 0, 0.0

    @property
    def is_between_passes(self) -> bool:
        """Whether no pass is under way."""
        return not len(self._order)

    def run(
        self, on_epoch: Callable[[Epoch], None], on_step: Callable[[Descent], None]
    ) -> None:
        """Trains to the end; what either function raises leaves it where it is.

        Args:
            on_epoch: called after each pass.
            on_step: called after each batch, and again after each pass.
        """
        while self.epochs < self._course.epochs and self._since < self._course.patience:
            self._pass(on_step)
            on_epoch(self._judged())
            on_step(self)
        self._network.load_state_dict(self._best)
        self._network.cpu()

    def state(self) -> TrainingState:
        """Where the training stands."""
        tensors = {f"weights.{k}": v for k, v in _weights(self._network).items()}
        tensors |= {f"best.{k}": v for k, v in self._best.items()}
        for place, kept in self._optimizer.state_dict()["state"].items():
            for name, value in kept.items():
                tensors[f"optimizer.{place}.{name}"] = value.detach().cpu()
        tensors["torch"] = torch.get_rng_state()
        arrays = {name: value.numpy().copy() for name, value in tensors.items()}
        facts = {
            "epochs": self.epochs,
            "since": self._since,
            "best_loss": repr(self.loss),
            "position": self._position,
            "sum": repr(self._sum),
            "random": json.dumps(self._rng.bit_generator.state),
        }
        return TrainingState({**arrays, "order": self._order.copy()}, facts)

    def restore(self, state: TrainingState) -> None:
        """Takes a training up where another one of the same samples and course was left.

        Raises:
            CheckpointError: a state of something else.
        """
        try:
            self._restore(state)
        except (KeyError, ValueError, TypeError, RuntimeError) as error:
            raise CheckpointError(f"no state of this training: {error}") from error

    def _restore(self, state: TrainingState) -> None:
        tensors = {name: torch.from_numpy(one.copy()) for name, one in state.tensors.items()}
        facts = {name: state.facts[name] for name in _FACTS}
        self._network.load_state_dict(_under("weights.", tensors))
        self._best = _under("best.", tensors)
        kept: dict[int, dict[str, Tensor]] = {}
        for name, value in _under("optimizer.", tensors).items():
            place, _, field = name.partition(".")
            kept.setdefault(int(place), {})[field] = value
        groups = self._optimizer.state_dict()["param_groups"]
        self._optimizer.load_state_dict({"state": kept, "param_groups": groups})
        torch.set_rng_state(tensors["torch"])
        self._rng.bit_generator.state = json.loads(facts["random"])
        self._order = state.tensors["order"].astype(np.int64)
        self.epochs, self._since = int(facts["epochs"]), int(facts["since"])
        self.loss, self._sum = float(facts["best_loss"]), float(facts["sum"])
        self._position = int(facts["position"])

    def _pass(self, on_step: Callable[[Descent], None]) -> None:
        total = len(self._learned)
        size = self._course.batch * (2 if self._network.design.kind == "reuse" else 1)
        if self.is_between_passes:
            self._order, self._position, self._sum = self._rng.permutation(total), 0, 0.0
        self._network.train()
        while self._position < total:
            rows = self._order[self._position : self._position + size]
            batch = self._learned.part(rows)
            self._optimizer.zero_grad()
            loss = _loss(self._model, batch, self._course, self._rng)
            self._backward(loss)
            self._optimizer.step()
            self._sum += float(loss.detach()) * len(batch)
            self._position += len(rows)
            on_step(self)

    def _judged(self) -> Epoch:
        """Ends a pass: how good the weights are, and whether they are the best so far."""
        self._network.eval()
        loss = _tried(self._network, self._tried, self._course)
        is_best = loss < self.loss - _PROGRESS
        self._since = 0 if is_best else self._since + 1
        if is_best:
            self._best, self.loss = _weights(self._network), loss
        self.epochs += 1
        self._order = np.empty(0, np.int64)
        return Epoch(self.epochs, loss, is_best, self._sum / len(self._learned))


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    found = (item for item in tensors.items() if item[0].startswith(prefix))
    return {name.removeprefix(prefix): value for name, value in found}


def _loss(
    network: FilterNetwork, batch: Samples, course: Course, rng: np.random.Generator
) -> Tensor:
    values, present = as_tensors(batch.inputs, network.bias.device)
    labels = torch.from_numpy(batch.labels).to(network.bias.device)
    if network.design.kind == "skip":
        logits = network.logits(values, present)
        return functional.binary_cross_entropy_with_logits(logits, labels.to(torch.float32))
    keys = network.keys(values, present)
    if course.loss == "pairs":
        return pair_loss(keys, network.bias, labels)
    return _contrastive(keys, network.bias, batch.labels, rng)


def _contrastive(
    keys: Tensor, bias: Tensor, labels: NDArray[np.int64], rng: np.random.Generator
) -> Tensor:
    """The published loss on one equal and one different partner of each input, by task."""
    total = keys.sum() * 0.0
    for task, column in enumerate(labels.T):
        first, second = _partners(column, rng)
        if not len(first):
            continue
        gap = (keys[first, task] - keys[second, task]).abs().sum(1)
        differs = torch.from_numpy(column[first] != column[second]).to(gap)
        total = total + contrastive_loss(torch.sigmoid(gap + bias[task]), differs)
    mean: Tensor = total / labels.shape[1]
    return mean


def _partners(
    column: NDArray[np.int64], rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Pairs of places in a batch: for each place one of its label and one of another."""
    first, second = [], []
    for place, label in enumerate(column):
        for others in (np.flatnonzero(column == label), np.flatnonzero(column != label)):
            others = others[others != place]
            if len(others):
                first.append(place)
                second.append(int(rng.choice(others)))
    return np.array(first, np.int64), np.array(second, np.int64)


def _tried(network: FilterNetwork, tried: Samples, course: Course) -> float:
    """The loss on samples held out, the same ones after every pass."""
    rng = np.random.default_rng(course.seed)
    with torch.no_grad():
        if network.design.kind == "reuse":
            rows = np.arange(min(len(tried), _LARGEST_TRIED))
            return float(_loss(network, tried.part(rows), course, rng))
        total = 0.0
        for start in range(0, len(tried), _LARGEST_TRIED):
            batch = tried.part(np.arange(start, min(len(tried), start + _LARGEST_TRIED)))
            total += float(_loss(network, batch, course, rng)) * len(batch)
    return total / len(tried)


def as_tensors(inputs: Inputs, device: torch.device) -> tuple[list[Tensor], Tensor | None]:
    """Inputs of a network, one tensor a modality, and which are there if there are several."""
    values = [torch.from_numpy(column).to(device) for column in inputs.columns.values()]
    if len(values) == 1:
        return values, None
    return values, torch.from_numpy(inputs.present.astype(np.float32)).to(device)


def _weights(network: FilterNetwork) -> dict[str, Tensor]:
    return {name: value.detach().cpu().clone() for name, value in network.state_dict().items()}
