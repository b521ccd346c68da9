"""Fitting a predictor to recorded streams (torch; the extra `train`).

What a predictor is asked in service depends on what the gate did before: how old the held
answer is, which feedback came. Trained on full records, where every picture was decoded, it
would be asked about states it never saw. `gating="random"` therefore replays each recording
several times under random masks: entries, chains behind them and single pictures, at rates
that differ from copy to copy. `gating="full"` is the published way, for fidelity and to measure
the gap.

Hyperparameters are those of thesis 2.5.1: RMSprop with rate 1e-3, batches of 2048, binary
cross-entropy. A share of the streams is held out, and the weights kept are those that did best
on it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from triparty.common.errors import SettingsError
from triparty.device.gate.features import Features, Matrix
from triparty.device.gate.policy import Arrivals, Column, Feedback, Flags, Rows
from triparty.device.gate.predictor import Network, Predictor, Weights, random_weights

if TYPE_CHECKING:
    import torch

Gating = Literal["random", "full"]
GATINGS: Final[tuple[str, ...]] = get_args(Gating)
NO_ANSWER: Final = -1
_TORCH: Final = "fitting a gate needs torch: pip install 'triparty[train]'"


@dataclass(frozen=True, eq=False)
class Recording:
    """What training needs of one stream: n packets in decode order, and what models saw.

    Attributes:
        time: (n,) presentation time in seconds.
        size: (n,) bytes.
        type: (n,) `PictureType`.
        reference: (n,) whether others may refer to it.
        entry: (n,) whether decoding may start there.
        slice_qp: (n,) quantiser, NaN where unknown.
        answer: (n, tasks) int64, equal numbers for equal answers; -1 where a model did not
            look, which counts as its last answer.
        sought: (tasks,) whether the answer itself is what is sought (an anomaly: any answer
            but 0 is necessary), or its change.
    """

    time: Column
    size: Column
    type: NDArray[np.int8]
    reference: Flags
    entry: Flags
    slice_qp: Column
    answer: Rows
    sought: Flags

    def __len__(self) -> int:
        """How many packets."""
        return len(self.time)


@dataclass(frozen=True)
class Course:
    """How a predictor is trained.

    Attributes:
        gating: `random` or `full`.
        copies: how many masks each recording is replayed under.
        epochs: most passes over the samples.
        patience: passes without progress before it stops.
        held_out: share of the streams on which progress is measured.
        rate: of RMSprop.
        batch: samples a step.
        most_samples: drawn from what the replays made.
        seed: of masks, weights and order.
    """

    gating: Gating = "random"
    copies: int = 8
    epochs: int = 60
    patience: int = 6
    held_out: float = 0.2
    rate: float = 1e-3
    batch: int = 2048
    most_samples: int = 400_000
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuses what cannot be trained.

        Raises:
            SettingsError: an unknown gating, or a number out of its range.
        """
        if self.gating not in GATINGS:
            raise SettingsError(
                f"gating {self.gating!r:.40}: expected one of {', '.join(GATINGS)}"
            )
        whole = (self.copies, self.epochs, self.patience, self.batch, self.most_samples)
        if min(whole) < 1 or not 0 <= self.held_out < 1 or not self.rate > 0:
            raise SettingsError(
                "a course needs whole numbers from 1, a rate above 0, and a held-out share "
                "from 0 to below 1"
            )


@dataclass(frozen=True)
class Fitted:
    """A trained predictor and how it came about.

    Attributes:
        predictor: with the best weights.
        samples: trained on.
        epochs: passes made.
        loss: binary cross-entropy on the streams held out (on the others if there are none).
        base_rate: share of necessary samples, (tasks,).
    """

    predictor: Predictor
    samples: int
    epochs: int
    loss: float
    base_rate: tuple[float, ...]


@dataclass(frozen=True, eq=False)
class Samples:
    """What a predictor would have been asked, and what was true.

    Attributes:
        inputs: (n, width) float32.
        necessary: (n, tasks) float32, 0 or 1.
        recording: (n,) which recording each came from.
    """

    inputs: Matrix
    necessary: Matrix
    recording: Rows

    def part(self, rows: Rows | Flags) -> Samples:
        """Some of them."""
        return Samples(self.inputs[rows], self.necessary[rows], self.recording[rows])


def fit(recordings: Sequence[Recording], network: Network, course: Course) -> Fitted:
    """Trains a predictor.

    Args:
        recordings: of at least one stream with at least two packets; their tasks are the
            network's heads.
        network: which, with what inputs.
        course: how.

    Raises:
        SettingsError: torch is not installed, or the recordings do not fit the network.
    """
    _check(recordings, network)
    rng = np.random.default_rng(course.seed)
    samples = simulate(recordings, network, course, rng)
    if len(samples.inputs) > course.most_samples:
        kept = rng.choice(len(samples.inputs), course.most_samples, replace=False)
        samples = samples.part(np.sort(kept))
    held_out = _held_out(len(recordings), course.held_out, rng)
    is_held = np.isin(samples.recording, held_out)
    learned, tried = samples.part(~is_held), samples.part(is_held)
    weights, epochs, loss = _descend(
        learned, tried if len(tried.inputs) else learned, network, course, rng
    )
    base_rate = tuple(float(share) for share in learned.necessary.mean(axis=0))
    return Fitted(Predictor(network, weights), len(learned.inputs), epochs, loss, base_rate)


def _check(recordings: Sequence[Recording], network: Network) -> None:
    if not recordings or max(len(one) for one in recordings) < 2:
        raise SettingsError("fitting a gate needs at least one recording of two packets")
    for one in recordings:
        if one.answer.shape != (len(one), network.tasks) or one.sought.shape != (
            network.tasks,
        ):
            raise SettingsError(
                f"a recording has answers of shape {one.answer.shape}: expected "
                f"({len(one)}, {network.tasks}) for this network"
            )


def _held_out(count: int, share: float, rng: np.random.Generator) -> Rows:
    """Recordings to measure progress on: none of one, at least one of several."""
    wanted = min(count - 1, max(1, round(share * count))) if share > 0 else 0
    return rng.permutation(count)[:wanted]


def simulate(
    recordings: Sequence[Recording],
    network: Network,
    course: Course,
    rng: np.random.Generator,
) -> Samples:
    """Replays recordings under masks; a sample a packet that comes after a first look.

    All copies of all recordings are streams of one replay, a packet of each a round. Feedback
    comes at once, as when the gate waits for its models; the answer held is the last in decode
    order.
    """
    copies = 1 if course.gating == "full" else course.copies
    features = Features(network.features)
    count = len(recordings) * copies
    features.grow(count)
    source = np.repeat(np.arange(len(recordings)), copies)
    columns = {name: _side_by_side(recordings, name) for name in _COLUMNS}
    answers = _stacked([_filled(one.answer) for one in recordings])
    lengths = np.array([len(one) for one in recordings])
    mask = _Masks(count, rng) if course.gating == "random" else None
    held = np.full((count, network.tasks), NO_ANSWER)
    inputs, necessary, origin = [], [], []
    sought = np.stack([one.sought for one in recordings])[source]
    for place in range(lengths.max()):
        here = np.flatnonzero(lengths[source] > place)
        now = {name: column[source[here], place] for name, column in columns.items()}
        arrivals = Arrivals(stream=here, **now)
        features.see(arrivals)
        answer = answers[source[here], place]
        reward = np.where(sought[here], answer > 0, answer != held[here]).astype(np.float64)
        asked = held[here, 0] != NO_ANSWER
        inputs.append(features.matrix(arrivals, np.flatnonzero(asked)))
        necessary.append(reward[asked].astype(np.float32))
        origin.append(source[here][asked])
        picked = np.arange(len(here)) if mask is None else mask.pick(here, arrivals.entry)
        rows, time = here[picked], arrivals.time[picked]
        features.chosen(rows, time)
        features.learn(
            Feedback(float(place), rows, time, reward[picked], np.ones(len(rows), bool))
        )
        held[rows] = answer[picked]
    return Samples(np.concatenate(inputs), np.concatenate(necessary), np.concatenate(origin))


def _filled(answer: Rows) -> Rows:
    """Answers with each gap filled by the one before it; 0 before the first."""
    known = answer != NO_ANSWER
    last = np.maximum.accumulate(np.where(known, np.arange(len(answer))[:, None], 0), axis=0)
    return np.maximum(np.take_along_axis(answer, last, axis=0), 0)


_COLUMNS: Final = ("time", "size", "type", "reference", "entry", "slice_qp")


def _side_by_side(recordings: Sequence[Recording], name: str) -> NDArray[Any]:
    return _stacked([getattr(one, name) for one in recordings])


def _stacked(columns: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """(recordings, longest, ...) with zeros behind what is shorter."""
    longest = max(len(column) for column in columns)
    shape = (len(columns), longest, *columns[0].shape[1:])
    made = np.zeros(shape, columns[0].dtype)
    for row, column in zip(made, columns, strict=True):
        row[: len(column)] = column
    return made


class _Masks:
    """Random looks at each copy: at entries, on from a look, and anywhere."""

    def __init__(self, count: int, rng: np.random.Generator) -> None:
        self._rng = rng
        self._at_entry = rng.uniform(0.05, 1.0, count)
        self._onward = rng.choice([0.0, 0.5, 0.9, 0.98], count)
        self._anywhere = 10.0 ** rng.uniform(-3.0, -0.5, count)
        self._before = np.zeros(count, bool)

    def pick(self, here: Rows, entry: Flags) -> Rows:
        """Places in `here` that are looked at."""
        chance = np.where(entry, self._at_entry[here], self._anywhere[here])
        chance = np.maximum(chance, np.where(self._before[here], self._onward[here], 0.0))
        looked = self._rng.random(len(here)) < chance
        self._before[here] = looked
        return np.flatnonzero(looked)


def _descend(
    learned: Samples,
    tried: Samples,
    network: Network,
    course: Course,
    rng: np.random.Generator,
) -> tuple[Weights, int, float]:
    """The best weights, how many passes were made, and the loss on `tried`."""
    try:
        import torch
    except ImportError as error:
        raise SettingsError(_TORCH) from error
    weights = {
        name: torch.tensor(value, requires_grad=True)
        for name, value in random_weights(network, rng=rng).items()
    }
    # The constants of Keras' RMSprop, with which the published network was trained.
    optimizer = torch.optim.RMSprop(weights.values(), lr=course.rate, alpha=0.9, eps=1e-7)
    entropy = torch.nn.functional.binary_cross_entropy_with_logits
    inputs, necessary = torch.tensor(learned.inputs), torch.tensor(learned.necessary)
    best, best_loss, since, epochs = _kept(weights), float("inf"), 0, 0
    while epochs < course.epochs and since < course.patience:
        epochs += 1
        order = torch.tensor(rng.permutation(len(inputs)))
        for rows in torch.split(order, course.batch):
            optimizer.zero_grad()
            logits = torch_logits(network, weights, inputs[rows])
            torch.autograd.backward(entropy(logits, necessary[rows]))
            optimizer.step()
        with torch.no_grad():
            logits = torch_logits(network, weights, torch.tensor(tried.inputs))
            loss = float(entropy(logits, torch.tensor(tried.necessary)))
        if loss < best_loss - 1e-5:
            best, best_loss, since = _kept(weights), loss, 0
        else:
            since += 1
    return best, epochs, best_loss


def _kept(weights: dict[str, torch.Tensor]) -> Weights:
    return {name: value.detach().numpy().copy() for name, value in weights.items()}


def torch_logits(
    network: Network, weights: dict[str, torch.Tensor], inputs: torch.Tensor
) -> torch.Tensor:
    """What `Predictor.logits` computes, with gradients; the law is that both agree."""
    import torch

    def dense(name: str, values: torch.Tensor) -> torch.Tensor:
        return values @ weights[f"{name}.weight"] + weights[f"{name}.bias"]

    def twice(name: str, values: torch.Tensor) -> torch.Tensor:
        return torch.relu(dense(f"{name}2", torch.relu(dense(f"{name}1", values))))

    if network.name == "extended":
        return dense("heads", twice("hidden", inputs))
    columns = network.features.columns()
    views = [twice(view, inputs[:, columns[view]]) for view in ("independent", "predicted")]
    joined = torch.cat(views, dim=1)
    if not network.has_temporal_view:
        return dense("context", joined)
    context = torch.sigmoid(dense("context", joined))
    fused = torch.cat([context, inputs[:, columns["temporal"]]], dim=1)
    return dense("heads", torch.relu(dense("fused", fused)))
