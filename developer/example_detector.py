"""A small detector of people and cars for trying things out, trained here on generated scenes.

It finds what `triparty.common.scenes` draws, and nothing that a real camera sees. Its form is
that of FastestDet: (1, 3, S, S) BGR 0..1 in, one grid of (1, 5 + classes, S / 16, S / 16) out.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from triparty.common import scenes
from triparty.common.console import progress
from triparty.common.errors import StateError
from triparty.common.files import write_atomic
from triparty.developer.threads import one_thread

if TYPE_CHECKING:
    import torch

SIDE, STRIDE = 160, 16
CELLS = SIDE // STRIDE
CLASSES = len(scenes.LABELS)
WIDTHS = (16, 24, 48, 64)
BATCH = 16
PICTURES = 640
LEARNING_RATE = 4e-3
SEED = 7
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class TrainedDetector:
    """How the training went.

    Attributes:
        seconds: it took.
        steps: batches seen.
        loss: of the last batches, mean.
        parameters: weights of the model.
    """

    seconds: float
    steps: int
    loss: float
    parameters: int


def make_example_detector(
    out: Path, *, steps: int = 300, clock: Callable[[], float] = time.monotonic
) -> TrainedDetector:
    """Trains the detector and writes it as one ONNX file.

    Args:
        out: a file that does not exist yet.
        steps: batches to train on.
        clock: seconds.

    Raises:
        StateError: `out` exists.
    """
    import torch

    if out.exists():
        raise StateError(f"{out} exists: name another file, or remove it")
    with one_thread(), torch.random.fork_rng():
        torch.manual_seed(SEED)
        model = _model()
        started = clock()
        loss = _train(model, steps)
        took = clock() - started
        _export(model, out)
    return TrainedDetector(
        seconds=round(took, 1),
        steps=steps,
        loss=round(loss, 3),
        parameters=sum(weights.numel() for weights in model.parameters()),
    )


def _model() -> torch.nn.Sequential:
    """Halves its input four times, then says of each cell what is in it."""
    from torch import nn

    layers: list[nn.Module] = []
    before = 3
    for width in WIDTHS:
        layers += [
            nn.Conv2d(before, width, 3, stride=2, padding=1),
            nn.BatchNorm2d(width),
            nn.ReLU(),
        ]
        before = width
    for _ in range(2):  # wide enough for a car
        layers += [
            nn.Conv2d(before, before, 5, padding=2, groups=before),
            nn.Conv2d(before, before, 1),
            nn.BatchNorm2d(before),
            nn.ReLU(),
        ]
    return nn.Sequential(*layers, nn.Conv2d(before, 5 + CLASSES, 1))


def _train(model: torch.nn.Module, steps: int) -> float:
    """Trains; returns the last losses' mean."""
    import torch

    rng = np.random.default_rng(SEED)
    drawn = [_drawn(rng) for _ in range(PICTURES)]
    inputs = torch.from_numpy(np.stack([planes for planes, _ in drawn]))
    targets = torch.from_numpy(np.stack([grid for _, grid in drawn]))
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=0.01)
    model.train()
    losses: list[float] = []
    with progress("training", steps) as advance:
        for step in range(steps):
            for group in optimizer.param_groups:
                group["lr"] = LEARNING_RATE * max(0.02, 1 - step / steps)
            rows = torch.from_numpy(rng.integers(0, PICTURES, BATCH))
            loss = _loss(model(inputs[rows]), targets[rows])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            losses.append(float(loss.detach()))
            advance(1)
    model.train(False)
    return float(np.mean(losses[-20:]))


def _drawn(rng: np.random.Generator) -> tuple[Floats, Floats]:
    """A picture as the detector takes it, and (6, cells, cells) what each cell should say.

    The six: whether the middle of a thing is there, where in the cell (x, y), its width and
    height in shares of the picture, its label.
    """
    picture, things = scenes.picture(rng)
    rows = (np.arange(SIDE) + 0.5) * scenes.HEIGHT / SIDE
    columns = (np.arange(SIDE) + 0.5) * scenes.WIDTH / SIDE
    small = picture[rows.astype(int)][:, columns.astype(int), ::-1]
    grid = np.zeros((6, CELLS, CELLS), np.float32)
    for label, (left, top, right, bottom) in things:
        x, y = (left + right) / 2 * CELLS, (top + bottom) / 2 * CELLS
        column, row = min(int(x), CELLS - 1), min(int(y), CELLS - 1)
        grid[:, row, column] = (1, x - column, y - row, right - left, bottom - top, label)
    return np.ascontiguousarray(small.transpose(2, 0, 1) / 255, np.float32), grid


def _loss(said: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Whether something is there; and where something is, its place, size and label."""
    from torch.nn import functional

    is_there = target[:, 0] > 0
    presence = functional.binary_cross_entropy_with_logits(
        said[:, 0], target[:, 0], pos_weight=said.new_tensor(4.0)
    )
    if not is_there.any():
        return presence
    found, wanted = said.movedim(1, -1)[is_there], target.movedim(1, -1)[is_there]
    place = functional.l1_loss(found[:, 1:3].tanh(), wanted[:, 1:3])
    size = functional.l1_loss(found[:, 3:5].sigmoid(), wanted[:, 3:5])
    label = functional.cross_entropy(found[:, 5:], wanted[:, 5].long())
    return presence * 10 + place + 4 * size + label * 0.5


def _export(model: torch.nn.Module, out: Path) -> None:
    """One ONNX file that appears whole; presence and classes as probabilities."""
    import torch

    class Whole(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = model

        def forward(self, planes: torch.Tensor) -> torch.Tensor:
            said = self.inner(planes)
            parts = [said[:, :1].sigmoid(), said[:, 1:5], said[:, 5:].softmax(dim=1)]
            return torch.cat(parts, dim=1)

    buffer: Any = BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the older exporter, which needs `onnx` alone
        torch.onnx.export(
            Whole().eval(),
            (torch.zeros(1, 3, SIDE, SIDE),),
            buffer,
            input_names=["picture"],
            output_names=["cells"],
            opset_version=17,
            dynamo=False,
        )
    write_atomic(out, buffer.getvalue())
