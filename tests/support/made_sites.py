"""Sites of a federation, in process: honest ones over linear data, and those that are not."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import Array, Context, Message
from numpy.typing import NDArray

from triparty.common.federation import Task, Weights
from triparty.developer.federation.federation import Federation
from triparty.developer.federation.plan import Plan
from triparty.developer.federation.simulation import NoAnswerError, Site, simulate
from triparty.device.federation.answer import answer
from triparty.device.federation.learner import Trained

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
TASK = Task("linear", epochs=1, rate=0.1, batch=0, optimizer="sgd")
START: Weights = {"w": np.zeros((3, 2), np.float32), "b": np.zeros(2, np.float32)}


@dataclass(frozen=True)
class LinearSite:
    """Least squares on data of its own, by full-batch gradient steps."""

    x: NDArray[np.float32]
    y: NDArray[np.float32]

    @classmethod
    def draw(cls, seed: int, rows: int = 20) -> LinearSite:
        rng = np.random.default_rng(seed)
        return cls(
            rng.normal(size=(rows, 3)).astype(np.float32),
            rng.normal(size=(rows, 2)).astype(np.float32),
        )

    def gradient(self, weights: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        error = self.x @ weights["w"] + weights["b"] - self.y
        return {"w": self.x.T @ error / len(self.x), "b": error.mean(0)}

    def train(self, weights: Weights, task: Task) -> Trained:
        made = {name: value.copy() for name, value in weights.items()}
        for _ in range(task.epochs):
            for name, slope in self.gradient(made).items():
                made[name] -= np.float32(task.rate) * slope
        error = self.x @ made["w"] + made["b"] - self.y
        return Trained(made, len(self.x), float((error**2).mean()))


def honest(learner: Any) -> Site:
    return lambda message, context: answer(message, lambda: learner)


def sending(change: Callable[[Message], None], seed: int = 9) -> Site:
    """A site whose answer is changed on its way out."""

    def site(message: Message, context: Context) -> Message:
        reply = honest(LinearSite.draw(seed))(message, context)
        change(reply)
        return reply

    return site


def with_array(name: str, value: Any) -> Site:
    def change(reply: Message) -> None:
        reply.content.array_records["arrays"][name] = Array(value)

    return sending(change)


def with_metrics(**metrics: Any) -> Site:
    def change(reply: Message) -> None:
        for name, value in metrics.items():
            reply.content.metric_records["metrics"][name] = value

    return sending(change)


def dead(message: Message, context: Context) -> Message:
    raise NoAnswerError


def dying_in(number: int, site: Site, how: type[BaseException] = NoAnswerError) -> Site:
    """A site that answers until a round."""
    answered: list[int] = []

    def one(message: Message, context: Context) -> Message:
        answered.append(number)
        if len(answered) >= number:
            raise how
        return site(message, context)

    return one


def new_federation(folder: Path, plan: Plan, weights: Weights = START) -> Federation:
    return Federation.make(
        folder / "federation", plan=plan, initial=weights, address="127.0.0.1:8000", now=NOW
    )


def run_in_process(federation: Federation, sites: Mapping[str, Site]) -> Weights:
    """All rounds that are left."""
    simulate(federation, sites)
    return federation.last().weights


def mean(*weights: Weights) -> Weights:
    return {name: np.mean([one[name] for one in weights], axis=0) for name in weights[0]}
