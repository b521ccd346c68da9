"""How well models are predicted: by a table of links, or measured on a profiled sample."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from triparty.common.errors import SettingsError
from triparty.common.links.planning.problem import Floats, Mask, with_each

ENSEMBLE_GAIN = 0.02
"""What a second source is taken to add where only single links were measured (thesis 5.5.5)."""

Outputs = NDArray[Any]
Predict = Callable[[str, Mapping[str, Outputs]], Outputs]
"""Predicts the outputs of a target on rows from those of sources."""
Agreement = Callable[[str, Outputs, Outputs], float]
"""Share 0 to 1 in which predicted outputs of a model agree with its own."""


@dataclass(frozen=True, eq=False)
class PairQualities:
    """Qualities of single links; an ensemble is as good as its best source, and a bit better.

    Attributes:
        pairs: (n, n) quality 0 to 1 of the link from a source (row) to a target (column); NaN
            where there is none. The diagonal is not used.
        gain: that two or more sources add to the best one.
        constant: (n,) quality where no source is there: of the most usual output; 0 by default.
    """

    pairs: Floats
    gain: float = ENSEMBLE_GAIN
    constant: Floats = field(default_factory=lambda: np.zeros(0))

    def __post_init__(self) -> None:
        """Refuses a table that is none.

        Raises:
            SettingsError: not (n, n), or a quality that is not 0 to 1.
        """
        pairs = np.array(self.pairs, np.float64)
        if pairs.ndim != 2 or pairs.shape[0] != pairs.shape[1]:
            raise SettingsError(f"qualities: expected a table (n, n), got {pairs.shape}")
        np.fill_diagonal(pairs, np.nan)
        constant = self.constant if self.constant.size else np.zeros(len(pairs))
        known = np.concatenate([pairs[~np.isnan(pairs)], constant])
        if len(constant) != len(pairs) or not ((known >= 0) & (known <= 1)).all():
            raise SettingsError("qualities: expected shares, 0 to 1")
        object.__setattr__(self, "pairs", pairs)
        object.__setattr__(self, "constant", np.asarray(constant, np.float64))

    @property
    def links(self) -> Mask:
        """(n, n), whether there is a link."""
        return ~np.isnan(self.pairs)

    def of(self, active: Mask) -> Floats:
        """See `Qualities`."""
        table = np.where(self.links, self.pairs, -np.inf)
        best = np.where(active[:, :, None], table, -np.inf).max(axis=1)
        return self._joined(best, active.astype(np.intp) @ self.links.astype(np.intp))

    def with_each(self, active: Mask) -> Floats:
        """See `Qualities`; in O(n^2)."""
        table = np.where(self.links, self.pairs, -np.inf)
        best = np.where(active[:, None], table, -np.inf).max(axis=0)
        count = active.astype(np.intp) @ self.links.astype(np.intp)
        added = self.links & ~active[:, None]
        return self._joined(np.maximum(best, table), count + added)

    def _joined(self, best: Floats, sources: NDArray[np.intp]) -> Floats:
        helped = np.minimum(best + self.gain * (sources > 1), 1.0)
        return np.where(sources > 0, helped, self.constant)


class MeasuredQualities:
    """Qualities of ensembles as they are, on a sample on which all models were run.

    Each target is predicted once from each set of sources that is asked for.

    Args:
        models: n names, in the order of the plan's problem.
        outputs: of each model on the rows of the sample.
        links: (n, n), whether there is a link.
        predict: predicts a target from sources; not called without any.
        agreement: of predicted outputs with the model's own.
        doubt: rows that are taken to have been predicted wrong beside those of the sample, so
            that a model that fits into the budget is run rather than predicted without fault
            on a few rows.

    Raises:
        SettingsError: a model without outputs, or with other rows than the rest.
    """

    def __init__(
        self,
        models: Sequence[str],
        outputs: Mapping[str, Outputs],
        links: Mask,
        predict: Predict,
        agreement: Agreement,
        *,
        doubt: float = 1.0,
    ) -> None:
        """Has predicted nothing yet."""
        if missing := [name for name in models if name not in outputs]:
            raise SettingsError(f"no outputs of the model '{missing[0]}' in the sample")
        if len({len(outputs[name]) for name in models}) != 1:
            raise SettingsError("outputs of a sample must have the same rows for all models")
        self.links = np.array(links, bool)
        np.fill_diagonal(self.links, val=False)
        self._models, self._outputs = tuple(models), outputs
        self._predict, self._agreement = predict, agreement
        self._certainty = self.rows / (self.rows + doubt) if self.rows else 0.0
        self._known: dict[tuple[int, bytes], float] = {}

    @property
    def rows(self) -> int:
        """Of the sample."""
        return len(self._outputs[self._models[0]])

    def of(self, active: Mask) -> Floats:
        """See `Qualities`."""
        found = np.ones(active.shape)
        for m, row in enumerate(active):
            for target in np.flatnonzero(~row):
                found[m, target] = self._quality(int(target), row & self.links[:, target])
        return found

    def with_each(self, active: Mask) -> Floats:
        """See `Qualities`."""
        return self.of(with_each(active))

    def _quality(self, target: int, sources: Mask) -> float:
        key = (target, sources.tobytes())
        if key not in self._known:
            self._known[key] = self._measured(target, sources)
        return self._known[key]

    def _measured(self, target: int, sources: Mask) -> float:
        if not sources.any():
            return 0.0
        name = self._models[target]
        given = {
            self._models[n]: self._outputs[self._models[n]] for n in np.flatnonzero(sources)
        }
        predicted = self._predict(name, given)
        return self._certainty * float(self._agreement(name, predicted, self._outputs[name]))
