"""What a predictor is told about the packet on offer, in groups that can be switched.

| group | width | what |
|---|---|---|
| `independent` | w | view 1 of the thesis: last sizes of independent pictures |
| `predicted` | w | view 2: last sizes of predicted pictures |
| `temporal` | 1 | view 3: the temporal estimate |
| `type` | 4 | the packet on offer is I, P, B; others may refer to it |
| `quantiser` | 2 | its slice QP on the stream's own scale; whether it is known |
| `age` | 2 | seconds and packets since the last picture chosen, log(1 + x) |
| `since` | 2 | sizes above the usual since then: their sum, log(1 + x), and the largest |
| `feedback` | 3 | mean reward, how many observations, seconds since the last, log(1 + x) |

The first three are the published design; the others are extensions. Training and service make
their inputs by this same code.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from triparty.common.errors import SettingsError
from triparty.device.gate.columns import PerStream
from triparty.device.gate.estimator import DiscountedEstimator, Estimator, PaperEstimator
from triparty.device.gate.policy import Arrivals, Column, Feedback, Rows
from triparty.device.gate.windows import Kinds, RunningScale, SizeWindows, waves
from triparty.device.streams.packets import PictureType

Matrix = NDArray[np.float32]
PUBLISHED: Final = ("independent", "predicted", "temporal")
EXTENDED: Final = (*PUBLISHED, "type", "quantiser", "age", "since", "feedback")
_FIXED: Final = {
    "temporal": 1,
    "type": 4,
    "quantiser": 2,
    "age": 2,
    "since": 2,
    "feedback": 3,
}
ESTIMATORS: Final = ("paper", "discounted")
LONGEST_WINDOW: Final = 64


@dataclass(frozen=True, slots=True)
class FeatureChoice:
    """Which groups a predictor is given, and how they are made.

    Attributes:
        groups: names, in the order of the columns.
        window: w.
        estimator: `paper` or `discounted`.
        horizon: T of the paper's estimator, in rounds.
    """

    groups: tuple[str, ...] = EXTENDED
    window: int = 5
    estimator: str = "discounted"
    horizon: int = 90_000

    def __post_init__(self) -> None:
        """Refuses what cannot be made.

        Raises:
            SettingsError: an unknown group or estimator, a group twice, no group, or a window
                or horizon out of range.
        """
        unknown = [name for name in self.groups if name not in EXTENDED]
        if unknown or not self.groups or len(set(self.groups)) != len(self.groups):
            raise SettingsError(
                f"feature groups {self.groups!r:.200}: expected each at most once of "
                f"{', '.join(EXTENDED)}"
            )
        if self.estimator not in ESTIMATORS:
            raise SettingsError(
                f"estimator {self.estimator!r:.40}: expected {', '.join(ESTIMATORS)}"
            )
        if not 1 <= self.window <= LONGEST_WINDOW:
            raise SettingsError(f"window {self.window}: expected 1 to {LONGEST_WINDOW}")
        if self.horizon < 2:
            raise SettingsError(f"horizon {self.horizon}: expected at least 2 rounds")

    def columns(self) -> dict[str, slice]:
        """Where each group lies in a row of the matrix."""
        places: dict[str, slice] = {}
        at = 0
        for name in self.groups:
            width = _FIXED.get(name, self.window)
            places[name] = slice(at, at + width)
            at += width
        return places

    @property
    def width(self) -> int:
        """Columns of the matrix."""
        return sum(_FIXED.get(name, self.window) for name in self.groups)


class Features(PerStream):
    """Keeps what the groups need, per stream, and makes the matrix of a round.

    Args:
        choice: which groups.
    """

    fills: ClassVar = {
        "_score": 0.0,
        "_excess": 0.0,
        "_largest": 0.0,
        "_passed": 0.0,
        "_quantiser": np.nan,
        "_chosen": np.nan,
        "_heard": np.nan,
    }

    def __init__(self, choice: FeatureChoice) -> None:
        """Has seen nothing."""
        self.choice = choice
        self._scale = RunningScale()
        self._qp_scale = RunningScale(smallest=0.5)
        self._windows = SizeWindows(window=choice.window)
        self._feedback = DiscountedEstimator()
        self._paper = (
            PaperEstimator(window=choice.window, horizon=choice.horizon)
            if choice.estimator == "paper"
            else None
        )
        self._score: Column = np.zeros(0)  # of the newest size
        self._excess: Column = np.zeros(0)  # sum of positive scores since the last choice
        self._largest: Column = np.zeros(0)  # score since the last choice
        self._passed: Column = np.zeros(0)  # packets since the last choice
        self._quantiser: Column = np.zeros(0)  # of the newest packet, scored
        self._chosen: Column = np.zeros(0)  # time of the last picture chosen
        self._heard: Column = np.zeros(0)  # time of the last picture with feedback

    @property
    def estimator(self) -> Estimator:
        """What makes the temporal view."""
        return self._paper or self._feedback

    @property
    def feedback(self) -> DiscountedEstimator:
        """Mean and number of the rewards observed."""
        return self._feedback

    def grow(self, rows: int) -> None:
        """Makes room for streams up to row `rows - 1`."""
        super().grow(rows)
        for part in self._parts():
            part.grow(rows)

    def forget(self, rows: Rows) -> None:
        """Puts streams back to what a new one begins with."""
        super().forget(rows)
        for part in self._parts():
            part.forget(rows)

    def _parts(self) -> list[PerStream]:
        parts = [self._scale, self._qp_scale, self._windows, self._feedback]
        return parts if self._paper is None else [*parts, self._paper]

    def see(self, arrivals: Arrivals) -> None:
        """Takes in the packets of a round."""
        sizes = np.log1p(arrivals.size)
        for wave in waves(arrivals.stream):
            stream, kind = arrivals.stream[wave], arrivals.type[wave]
            score = self._scale.score(stream, kind, sizes[wave])
            self._windows.push(stream, kind, score)
            self._score[stream] = score
            self._excess[stream] += np.maximum(score, 0.0)
            self._largest[stream] = np.maximum(self._largest[stream], score)
            self._passed[stream] += 1.0
            if "quantiser" in self.choice.groups:
                self._see_quantiser(stream, kind, arrivals.slice_qp[wave])

    def _see_quantiser(self, stream: Rows, kind: Kinds, quantiser: Column) -> None:
        self._quantiser[stream] = np.nan
        known = quantiser == quantiser
        if known.any():
            stream, kind, quantiser = stream[known], kind[known], quantiser[known]
            self._quantiser[stream] = self._qp_scale.score(stream, kind, quantiser)

    def score(self, stream: Rows) -> Column:
        """(n,) how unusual the newest size of each stream is, in spreads."""
        return self._score[stream]

    def estimate(self, stream: Rows) -> Column:
        """(n,) the temporal estimate; infinite where the paper's formula is."""
        return self.estimator.estimate()[stream]

    def matrix(self, arrivals: Arrivals, places: Rows) -> Matrix:
        """The inputs of a predictor, (n, width).

        Args:
            arrivals: of this round, after `see`.
            places: (n,) packets on offer, each the newest of its stream.
        """
        stream, time = arrivals.stream[places], arrivals.time[places]
        made = np.empty((len(places), self.choice.width), np.float32)
        for name, columns in self.choice.columns().items():
            made[:, columns] = self._group(name, stream, time, arrivals, places)
        return made

    def _group(
        self, name: str, stream: Rows, time: Column, arrivals: Arrivals, places: Rows
    ) -> Column:
        match name:
            case "independent":
                return self._windows.independent(stream)
            case "predicted":
                return self._windows.predicted(stream)
            case "temporal":
                return self._temporal(stream)[:, None]
            case "type":
                return _types(arrivals.type[places], arrivals.reference[places])
            case "quantiser":
                score = self._quantiser[stream]
                known = score == score
                return np.stack([np.where(known, score, 0.0), known], axis=1)
            case "age":
                age = _since(time, self._chosen[stream])
                return np.log1p(np.stack([age, self._passed[stream]], axis=1))
            case "since":
                excess = np.log1p(self._excess[stream])
                return np.stack([excess, self._largest[stream]], axis=1)
            case _:
                return self._heard_of(stream, time)

    def _temporal(self, stream: Rows) -> Column:
        """The estimate as a network can take it: at most what one choice would give."""
        estimate = self.estimate(stream)
        return estimate if self._paper is None else np.minimum(estimate, self._paper.largest)

    def _heard_of(self, stream: Rows, time: Column) -> Column:
        mean = self._feedback.mean()[stream]
        observed = np.log1p(self._feedback.observed()[stream])
        return np.stack([mean, observed, np.log1p(_since(time, self._heard[stream]))], axis=1)

    def chosen(self, stream: Rows, time: Column) -> None:
        """Ends a round, in which the pictures of these streams and times were chosen."""
        for array in (self._excess, self._largest, self._passed):
            array[stream] = 0.0
        self._chosen[stream] = time
        self._feedback.chosen(stream, time)
        if self._paper is not None:
            self._paper.chosen(stream, time)

    def learn(self, feedback: Feedback) -> None:
        """Takes in feedback; a picture was necessary if any task needed it."""
        reward = any_task(feedback.reward)
        known = reward == reward
        stream, time = feedback.stream[known], feedback.time[known]
        selected = feedback.selected[known]
        self._feedback.learn(stream, time, reward[known], selected)
        if self._paper is not None:
            self._paper.learn(stream, time, reward[known], selected)
        np.fmax.at(self._heard, stream, time)


def any_task(reward: Column) -> Column:
    """(n,) the largest reward of each picture over its tasks; NaN where none looked."""
    largest: Column = np.fmax.reduce(reward, axis=1)
    return largest


_LETTERS: Final = np.array(list(PictureType), np.int8)


def _types(kind: Kinds, reference: NDArray[np.bool_]) -> Column:
    letters = kind[:, None] == _LETTERS
    return np.concatenate([letters, reference[:, None]], axis=1).astype(np.float64)


_NEVER_S: Final = 60.0


def _since(time: Column, before: Column) -> Column:
    """Seconds from `before` to `time`; a minute where there was nothing before."""
    return np.where(before == before, np.maximum(time - before, 0.0), _NEVER_S)
