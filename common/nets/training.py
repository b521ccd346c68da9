"""Training a filter's network (torch; the extra `train`).

`skip` learns the probability that the model is needed by cross-entropy. `reuse` learns a
distance between inputs, by default by class-balanced cross-entropy over all pairs of a batch;
`contrastive` is the published loss on one equal and one different partner of each input.
Optimiser, rate and batch are those of thesis 3.5.1. A share of the samples is held out, and
the weights kept are those that did best on it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from triparty.common.errors import CheckpointError, DatasetError, SettingsError
from triparty.common.nets.design import Design
from triparty.common.nets.losses import contrastive_loss, pair_loss
from triparty.common.nets.network import FilterNetwork, scale_to
from triparty.common.nets.samples import Inputs, Samples, check_samples

if TYPE_CHECKING:
    from collections.abc import Iterator

Loss = Literal["pairs", "contrastive"]
LOSSES: Final[tuple[str, ...]] = get_args(Loss)
LEAST_SAMPLES: Final = 8
_LARGEST_TRIED: Final = 512  # inputs whose pairs say how well a distance does

Weights = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Course:
    """How a filter is trained.

    Attributes:
        epochs: most passes over the samples.
        patience: passes without progress before it stops.
        held_out: share of the samples on which progress is measured.
        rate: of RMSprop.
        batch: samples a step; pairs are made of twice as many.
        loss: of `reuse`: `pairs` or `contrastive`.
        seed: of weights, order and pairs.
        accelerated: run through `accelerate`, on the one device that it finds best.
    """

    epochs: int = 20
    patience: int = 6
    held_out: float = 0.15
    rate: float = 1e-3
    batch: int = 32
    loss: Loss = "pairs"
    seed: int = 0
    accelerated: bool = False

    def __post_init__(self) -> None:
        """Refuses what cannot be trained.

        Raises:
            SettingsError: an unknown loss, or a number out of its range.
        """
        if self.loss not in LOSSES:
            raise SettingsError(f"loss {self.loss!r:.40}: expected one of {', '.join(LOSSES)}")
        if min(self.epochs, self.patience, self.batch) < 1 or not self.rate > 0:
            raise SettingsError("a course needs whole numbers from 1 and a rate above 0")
        if not 0 <= self.held_out < 1:
            raise SettingsError(f"held-out share {self.held_out}: expected 0 to below 1")


@dataclass(frozen=True)
class Epoch:
    """How far training is.

    Attributes:
        number: of passes made, from 1.
        loss: on the samples held out.
        is_best: whether no pass before was better.
    """

    number: int
    loss: float
    is_best: bool


@dataclass(frozen=True, eq=False)
class Trained:
    """A trained network and how it came about.

    Attributes:
        network: with the best weights, settled and ready to be exported.
        samples: learnt from.
        epochs: passes made.
        loss: on the samples held out.
    """

    network: FilterNetwork
    samples: int
    epochs: int
    loss: float


def train(
    design: Design,
    samples: Samples,
    course: Course,
    *,
    start: Weights | None = None,
    on_epoch: Callable[[Epoch], None] = lambda _: None,
) -> Trained:
    """Trains a network.

    Args:
        design: of the network.
        samples: to learn from.
        course: how.
        start: weights to go on from, scaling included; None: random ones.
        on_epoch: called after each pass; what it raises ends the training.

    Raises:
        DatasetError: samples that nothing can be learnt from.
        CheckpointError: `start` is of another design.
    """
    samples = check_samples(samples, design)
    if len(samples) < LEAST_SAMPLES:
        raise DatasetError(f"{len(samples)} samples: expected at least {LEAST_SAMPLES}")
    rng = np.random.default_rng(course.seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(course.seed)
        network = FilterNetwork(design)
        if start is None:
            scale_to(network, samples.inputs)
        else:
            load_weights(network, start)
        order = rng.permutation(len(samples))
        held = round(course.held_out * len(samples))
        learned, tried = samples.part(order[held:]), samples.part(order[:held])
        epochs, loss = _descend(
            network, learned, tried if held else learned, course, rng, on_epoch
        )
    network.eval()
    network.settle()
    return Trained(network, len(learned), epochs, loss)


def load_weights(network: FilterNetwork, weights: Weights) -> None:
    """Puts weights into a network.

    Raises:
        CheckpointError: missing, unknown, of another shape, or not finite.
    """
    state = network.state_dict()
    if state.keys() != weights.keys():
        wrong = min(state.keys() ^ weights.keys())
        raise CheckpointError(f"weight '{wrong:.80}' of a filter is missing or unknown")
    for name, weight in weights.items():
        if tuple(state[name].shape) != weight.shape or not np.isfinite(weight).all():
            raise CheckpointError(
                f"weight '{name}' of a filter: expected finite numbers of shape "
                f"{tuple(state[name].shape)}, got shape {weight.shape}"
            )
    network.load_state_dict({k: torch.from_numpy(v.copy()) for k, v in weights.items()})


def _descend(
    network: FilterNetwork,
    learned: Samples,
    tried: Samples,
    course: Course,
    rng: np.random.Generator,
    on_epoch: Callable[[Epoch], None],
) -> tuple[int, float]:
    """Trains in place; how many passes were made, and the loss of the weights kept."""
    # The constants of Keras' RMSprop, with which the published filters were trained.
    optimizer: Any = torch.optim.RMSprop(
        network.parameters(), lr=course.rate, alpha=0.9, eps=1e-7
    )
    backward: Callable[[Tensor], None] = torch.autograd.backward
    model: Any = network
    if course.accelerated:
        from accelerate import Accelerator  # type: ignore[import-untyped]

        accelerator = Accelerator()
        model, optimizer = accelerator.prepare(network, optimizer)
        backward = accelerator.backward
    best, best_loss, since, number = _state(network), float("inf"), 0, 0
    while number < course.epochs and since < course.patience:
        number += 1
        network.train()
        for batch in _batches(learned, network.design, course, rng):
            optimizer.zero_grad()
            backward(_loss(model, batch, course, rng))
            optimizer.step()
        network.eval()
        loss = _tried(network, tried, course)
        is_best = loss < best_loss - 1e-5
        since = 0 if is_best else since + 1
        if is_best:
            best, best_loss = _state(network), loss
        on_epoch(Epoch(number, loss, is_best))
    network.load_state_dict(best)
    network.cpu()
    return number, best_loss


def _batches(
    learned: Samples, design: Design, course: Course, rng: np.random.Generator
) -> Iterator[Samples]:
    size = course.batch * (2 if design.kind == "reuse" else 1)
    order = rng.permutation(len(learned))
    for start in range(0, len(order), size):
        yield learned.part(order[start : start + size])


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


def _state(network: FilterNetwork) -> dict[str, Tensor]:
    return {name: value.detach().cpu().clone() for name, value in network.state_dict().items()}
