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
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from triparty.common.errors import CheckpointError, DatasetError
from triparty.common.nets.course import LOSSES, Course, Loss
from triparty.common.nets.descent import Descent, Epoch, TrainingState, as_tensors
from triparty.common.nets.design import Design
from triparty.common.nets.network import FilterNetwork, scale_to
from triparty.common.nets.samples import Samples, check_samples

__all__ = [
    "LEAST_SAMPLES",
    "LOSSES",
    "Course",
    "Descent",
    "Epoch",
    "Loss",
    "Trained",
    "TrainingState",
    "as_tensors",
    "load_weights",
    "train",
]

LEAST_SAMPLES: Final = 8

Weights = Mapping[str, NDArray[Any]]


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
    resume: TrainingState | None = None,
    on_step: Callable[[Descent], None] = lambda _: None,
) -> Trained:
    """Trains a network.

    Args:
        design: of the network.
        samples: to learn from.
        course: how.
        start: weights to go on from, scaling included; None: random ones.
        on_epoch: called after each pass; what it raises ends the training.
        resume: where a training of the same design, samples and course was left.
        on_step: called after each batch, and again after each pass, with the training, whose
            state can be kept; what it raises ends the training.

    Raises:
        DatasetError: samples that nothing can be learnt from.
        CheckpointError: `start` or `resume` is of another training.
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
        descent = Descent(network, learned, tried if held else learned, course, rng)
        if resume is not None:
            descent.restore(resume)
        descent.run(on_epoch, on_step)
    network.eval()
    network.settle()
    return Trained(network, len(learned), descent.epochs, descent.loss)


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
