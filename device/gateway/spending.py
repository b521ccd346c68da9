"""What decoding is expected to cost, and what may still be spent."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from triparty.device.streams.decoder import Spent
from triparty.device.streams.opening import Opened


class Spending:
    """interim"""

    def __init__(self, budget_ms: float, *, tick_s: float) -> None:
        self._budget_ms = budget_ms
        self.most_ms = budget_ms / tick_s
        self.available_ms = 0.0
        self.charged_ms = 0.0
        self.measured_ms = 0.0
        self._rate: dict[tuple[str, int, int], list[float]] = {}

    def begin_round(self) -> None:
        self.available_ms = min(self.available_ms + self._budget_ms, self.most_ms)

    def estimate(self, opened: Opened, sizes: Sequence[int]) -> NDArray[np.float64]:
        a, b = self._rate.get((opened.codec, opened.width, opened.height), [0.5, 0.1])
        return a + b * np.asarray(sizes) / 1e3

    def charge(self, cost_ms: float) -> None:
        self.charged_ms += cost_ms
        self.available_ms -= cost_ms

    def settle(self, cost_ms: float, cpu_ms: float) -> None:
        self.measured_ms += cpu_ms
        self.available_ms += cost_ms - cpu_ms

    def learn(self, opened: Opened, spent: Sequence[Spent]) -> None:
        pass
