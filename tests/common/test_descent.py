"""A training that is left and taken up ends in the same weights, bit for bit."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from made_inputs import SIZES, clouds

from triparty.common.errors import CheckpointError
from triparty.common.nets.design import Design
from triparty.common.nets.inputs import detect
from triparty.common.nets.samples import Samples, gather
from triparty.common.nets.training import Course, Descent, Trained, TrainingState, train

COURSE = Course(epochs=3, rate=5e-3, batch=16)
KINDS = [("skip", "pairs"), ("reuse", "pairs"), ("reuse", "contrastive")]


class Left(Exception):  # noqa: N818 - a signal, not an error
    pass


def samples(kind: Any) -> tuple[Design, Samples]:
    points, classes = clouds(120)
    labels = (classes == 0).astype(np.int64) if kind == "skip" else classes
    design = Design(kind, (detect(points),), **SIZES)
    return design, Samples(gather(points), labels[:, None])


def weights(done: Trained) -> dict[str, torch.Tensor]:
    return done.network.state_dict()


def carried(state: TrainingState) -> TrainingState:
    """As it is after it was on a disk."""
    tensors = {name: value.copy() for name, value in state.tensors.items()}
    return TrainingState(tensors, json.loads(json.dumps(dict(state.facts))))


def in_parts(design: Design, learnt: Samples, course: Course, steps: int) -> Trained:
    """Left after every so many steps, each part with generators that were used meanwhile."""
    kept: list[TrainingState] = []
    for _ in range(1000):
        left = steps

        def leave(descent: Descent) -> None:
            nonlocal left
            left -= 1
            if not left:
                kept.append(carried(descent.state()))
                raise Left

        torch.rand(7)
        resume = kept[-1] if kept else None
        try:
            return train(design, learnt, course, resume=resume, on_step=leave)
        except Left:
            continue
    raise AssertionError("it never ends")


@pytest.mark.parametrize(("kind", "loss"), KINDS)
@pytest.mark.parametrize("steps", [1, 5])
def test_parts_are_the_whole(kind: str, loss: Any, steps: int) -> None:
    design, learnt = samples(kind)
    course = replace(COURSE, loss=loss)
    whole = train(design, learnt, course)
    parts = in_parts(design, learnt, course, steps)
    assert (parts.epochs, parts.loss) == (whole.epochs, whole.loss)
    for name, weight in weights(whole).items():
        assert torch.equal(weight, weights(parts)[name]), name


@pytest.mark.parametrize("part", ["optimizer.0.square_avg", "torch", "random", "best"])
def test_every_part_of_a_state_matters(part: str) -> None:
    """Negative control: what is not taken along is missed."""
    design, learnt = samples("skip")
    kept: list[TrainingState] = []

    def leave(descent: Descent) -> None:
        if descent.epochs == 1 and not descent.is_between_passes:
            kept.append(carried(descent.state()))
            raise Left

    with pytest.raises(Left):
        train(design, learnt, COURSE, on_step=leave)
    tensors, facts = dict(kept[0].tensors), dict(kept[0].facts)
    if part == "torch":
        tensors["torch"] = torch.Generator().manual_seed(5).get_state().numpy()
    elif part == "random":
        facts["random"] = json.dumps(np.random.default_rng(5).bit_generator.state)
    elif part == "best":
        facts["best_loss"] = repr(-1.0)
    else:
        tensors[part] = np.ones_like(tensors[part])
    other = train(design, learnt, COURSE, resume=TrainingState(tensors, facts))
    whole = train(design, learnt, COURSE)
    assert any(
        not torch.equal(weight, weights(other)[name]) for name, weight in weights(whole).items()
    )


def test_a_state_of_something_else_is_refused() -> None:
    design, learnt = samples("skip")
    kept: list[TrainingState] = []
    train(design, learnt, replace(COURSE, epochs=1), on_step=lambda d: kept.append(d.state()))
    for broken in (
        TrainingState({}, kept[0].facts),
        TrainingState(kept[0].tensors, {}),
        TrainingState(kept[0].tensors, {**kept[0].facts, "random": "{}"}),
    ):
        with pytest.raises(CheckpointError, match="no state of this training"):
            train(design, learnt, COURSE, resume=broken)
    with pytest.raises(CheckpointError):
        train(replace(design, units=8), learnt, COURSE, resume=kept[0])
