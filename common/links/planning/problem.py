"""What a plan is chosen for: models, what each can be predicted with, costs and budgets.

Eq. 5.1 of the thesis: choose the models A to run, so that the mean over all models of 1 for
those in A and of the quality of the prediction for the others is largest, while A and the links
that predict the others stay within the budget.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from triparty.common.errors import SettingsError

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]
_SLACK = 1e-9  # of a budget: sums of the same costs in another order


class Qualities(Protocol):
    """How well each of n models is predicted from those that run.

    Attributes:
        links: (n, n), whether there is a link from a source (row) to a target (column).
    """

    links: Mask

    def of(self, active: Mask) -> Floats:
        """Quality 0 to 1 of predicting each model.

        Args:
            active: (m, n), m sets of models that run.

        Returns:
            (m, n); what it says of models that run is not used.
        """

    def with_each(self, active: Mask) -> Floats:
        """`of` the n sets that have one more model: (n, n), the added one is the row.

        Args:
            active: (n,), one set.
        """


@dataclass(frozen=True)
class Resource:
    """What is short.

    Attributes:
        name: of it, for example `memory`.
        unit: of costs and budgets.
        combine: `sum` of all that runs (time; memory of what is loaded at once), or `peak`
            (memory of what is loaded one after the other).
    """

    name: str
    unit: str
    combine: Literal["sum", "peak"] = "sum"


@dataclass(frozen=True, eq=False)
class Problem:
    """n models, of which some can be run under k budgets at once.

    Attributes:
        models: n different names.
        qualities: of predicting the others.
        resources: k of them.
        costs: (n, k) of running each model, at least 0.
        budget: (k,) at least 0.
        link_costs: (n, n, k) of running the link from a source to a target.
        weights: (n,) how much each model's output counts.
    """

    models: tuple[str, ...]
    qualities: Qualities
    resources: tuple[Resource, ...]
    costs: Floats
    budget: Floats
    link_costs: Floats = field(default_factory=lambda: np.zeros(0))
    weights: Floats = field(default_factory=lambda: np.zeros(0))

    def __post_init__(self) -> None:
        """Refuses what cannot be.

        Raises:
            SettingsError: a shape that does not fit, a cost, budget or weight below 0 or not
                finite, a name twice.
        """
        n, k = len(self.models), len(self.resources)
        if not n or len(set(self.models)) < n:
            raise SettingsError("a plan needs models with different names")
        self._take("costs", (n, k))
        self._take("budget", (k,))
        links = self.qualities.links
        if links.shape != (n, n):
            raise SettingsError(f"links: expected a table ({n}, {n}), got {links.shape}")
        if not self.link_costs.size:
            object.__setattr__(self, "link_costs", np.zeros((n, n, k)))
        if not self.weights.size:
            object.__setattr__(self, "weights", np.ones(n))
        self._take("link_costs", (n, n, k))
        self._take("weights", (n,))
        if not self.weights.sum() > 0:
            raise SettingsError("weights: at least one model must count")
        object.__setattr__(self, "link_costs", self.link_costs * links[:, :, None])

    def _take(self, name: str, shape: tuple[int, ...]) -> None:
        value = np.asarray(getattr(self, name), np.float64)
        if value.shape != shape:
            raise SettingsError(f"{name}: expected shape {shape}, got {value.shape}")
        if not (np.isfinite(value).all() and (value >= 0).all()):
            raise SettingsError(f"{name}: expected finite numbers of at least 0")
        object.__setattr__(self, name, value)

    def accuracy(self, active: Mask) -> Floats:
        """The objective of eq. 5.1 for sets of models.

        Args:
            active: (m, n).

        Returns:
            (m,), 0 to 1.
        """
        return self._mean(active, self.qualities.of(active))

    def accuracy_with_each(self, active: Mask) -> Floats:
        """The objective with one more model: (n,) by the added one; `active` is (n,)."""
        return self._mean(with_each(active), self.qualities.with_each(active))

    def cost(self, active: Mask) -> Floats:
        """What the models of sets and the links to all others cost.

        Args:
            active: (m, n).

        Returns:
            (m, k).
        """
        of = np.empty((len(active), len(self.resources)))
        for k, resource in enumerate(self.resources):
            models, links = self.costs[:, k], self.link_costs[:, :, k]
            if resource.combine == "sum":
                runs = active.astype(np.float64)
                of[:, k] = runs @ models + ((runs @ links) * ~active).sum(axis=1)
            else:
                own = np.where(active, models, 0.0).max(axis=1)
                used = active[:, :, None] & ~active[:, None, :]
                of[:, k] = np.maximum(own, np.where(used, links, 0.0).max(axis=(1, 2)))
        return of

    def fits(self, active: Mask) -> Mask:
        """Which of the sets (m, n) keep all budgets: (m,)."""
        return np.asarray((self.cost(active) <= self.budget * (1 + _SLACK)).all(axis=1))

    def shares(self, costs: Floats) -> Floats:
        """The largest share of any budget that costs (m, k) take: (m,); of none, infinite."""
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            shares = np.where(costs > 0, costs / self.budget, 0.0)
        largest: Floats = shares.max(axis=1)
        return largest

    def _mean(self, active: Mask, qualities: Floats) -> Floats:
        right = np.where(active, 1.0, np.clip(qualities, 0.0, 1.0))
        mean: Floats = right @ self.weights / self.weights.sum()
        return mean


def with_each(active: Mask) -> Mask:
    """(n, n): a set (n,) with one more model, which is the row."""
    each: Any = active | np.eye(len(active), dtype=bool)
    return np.asarray(each, bool)
