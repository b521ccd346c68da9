"""How one federation trains: rounds, deadlines, aggregation, guards; a file, checked."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Literal, Self, get_args

from triparty.common.errors import FederationError
from triparty.common.federation import Task

Aggregation = Literal["uniform", "examples", "median", "trimmed", "krum"]
"""How updates become one: the mean, each site alike (algorithm 5.1); the mean by numbers of
examples; Flower's median, trimmed mean and Krum, for sites that may lie."""

_LEAST_OF_A_SECURE_SUM: Final = 3  # of Flower's SecAgg+


@dataclass(frozen=True)
class Privacy:
    """Central differential privacy: clipped updates, noise on their mean, by Flower.

    Attributes:
        noise: standard deviation of the noise, in clipping norms of the sum.
        clip: L2 norm that an update is cut to.
    """

    noise: float
    clip: float

    def __post_init__(self) -> None:
        """Refuses what hides nothing.

        Raises:
            FederationError: a number that is not finite and positive.
        """
        for name, value in (("noise", self.noise), ("clip", self.clip)):
            if not (math.isfinite(value) and value > 0):
                raise FederationError(f"{name}: expected more than 0, got {value}")


@dataclass(frozen=True)
class Plan:
    """How one federation trains.

    Attributes:
        task: of each site, each round.
        rounds: in all.
        least_sites: answers that a round needs; with fewer its answers are thrown away.
        deadline_s: of a round; who has not answered then is left out of it.
        wait_s: for sites to connect, before a round.
        patience: rounds in a row without enough answers, after which the run ends.
        aggregation: how updates become one.
        largest_norm: of a site's change in a round, L2.
        most_examples: that count, where examples weigh.
        liars: sites that may lie, for `krum` and `trimmed`.
        privacy: noise, if any.
        secure: sums are masked by Flower's SecAgg+, so that no single update is seen.
    """

    task: Task
    rounds: int = 10
    least_sites: int = 2
    deadline_s: float = 600.0
    wait_s: float = 600.0
    patience: int = 3
    aggregation: Aggregation = "uniform"
    largest_norm: float = 1000.0
    most_examples: int = 100_000
    liars: int = 1
    privacy: Privacy | None = field(default=None)
    secure: bool = False

    def __post_init__(self) -> None:
        """Refuses what contradicts itself.

        Raises:
            FederationError: a number out of range, or options that exclude each other.
        """
        _within("rounds", self.rounds, 1, 100_000)
        _within("least_sites", self.least_sites, 1, 100_000)
        _within("patience", self.patience, 1, 1000)
        _within("most_examples", self.most_examples, 1, 1 << 40)
        _within("liars", self.liars, 0, 1000)
        _within("deadline_s", self.deadline_s, 0.01, 7 * 86400)
        _within("wait_s", self.wait_s, 0.0, 7 * 86400)
        _within("largest_norm", self.largest_norm, 1e-12, 1e12)
        if self.aggregation not in get_args(Aggregation):
            raise FederationError(
                f"aggregation: expected {', '.join(get_args(Aggregation))}, "
                f"got {self.aggregation!r}"
            )
        # Of these at least must be honest for each: Yin et al. 2018, Blanchard et al. 2017.
        robust = {"median": 3, "trimmed": 2 * self.liars + 1, "krum": 2 * self.liars + 3}
        needed = robust.get(self.aggregation, 1)
        if self.secure:
            needed = max(needed, _LEAST_OF_A_SECURE_SUM)
        if self.least_sites < needed:
            raise FederationError(
                f"{'secure sums' if self.secure else self.aggregation} need at least {needed} "
                f"sites a round, least_sites is {self.least_sites}"
            )
        if self.secure and (self.privacy or self.aggregation not in ("uniform", "examples")):
            raise FederationError(
                "secure sums show no single update: no robust aggregation and no server-side "
                "clipping with them"
            )
        if self.privacy and self.aggregation != "uniform":
            raise FederationError(
                "privacy needs aggregation 'uniform': its noise is for a mean"
            )

    def to_json(self) -> str:
        """The plan as a file keeps it."""
        return json.dumps(asdict(self), indent=2, sort_keys=True) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Reads a plan.

        Raises:
            FederationError: not a plan.
        """
        try:
            members: dict[str, Any] = json.loads(text)
            task, privacy = Task(**members.pop("task")), members.pop("privacy")
            return cls(task, privacy=Privacy(**privacy) if privacy else None, **members)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise FederationError(f"not a plan of a federation: {error}") from error


def _within(name: str, value: float, least: float, most: float) -> None:
    if not (math.isfinite(value) and least <= value <= most):
        raise FederationError(f"{name}: expected {least} to {most}, got {value}")
