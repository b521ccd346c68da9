"""A node's model on this device: loaded or not, what it costs, and whether it works."""

from __future__ import annotations

import gc
import os
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any, Final

import numpy as np

from triparty.common.links.planning.costs import Cost
from triparty.common.links.specs import check_outputs
from triparty.device.links.nodes import Model, Node, Row

_MIB: Final = 1 << 20
_CALLS: Final = 101  # of which the median is the latency
_PAGES = Path("/proc/self/statm")


class FailedError(Exception):
    """A model did not load, or raised, or said something that is none of its outputs."""


class Loading:
    """Loads, runs and unloads one model, and measures that.

    Args:
        node: of the model.
        retry_s: after a failure it is left alone for so long.
        clock: seconds.
    """

    def __init__(
        self, node: Node, *, retry_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Loads nothing yet."""
        self.node = node
        self.failures = 0
        self._retry_s, self._clock = retry_s, clock
        self._model: Model | None = None
        self._failure: str | None = None
        self._failed_at = 0.0
        self._load_s = 0.0
        self._memory_mib: float | None = node.memory_mib
        self._grown_bytes = 0
        self._calls: deque[float] = deque(maxlen=_CALLS)

    @property
    def is_loaded(self) -> bool:
        """Whether its model takes memory now."""
        return self._model is not None

    @property
    def failure(self) -> str | None:
        """Why it cannot be run now; None if it can, as far as is known."""
        if self._failure is not None and self._clock() - self._failed_at >= self._retry_s:
            self._failure = None
        return self._failure

    @property
    def cost(self) -> Cost | None:
        """As measured here; None before the first call."""
        if not self._calls:
            return None
        return Cost(self._memory_mib or 0.0, 1e3 * median(self._calls), self._load_s)

    def load(self) -> None:
        """Makes the model ready, if it is not.

        Raises:
            FailedError: it cannot be, or could not a moment ago.
        """
        self._model = self._ready()

    def unload(self) -> None:
        """Lets the model go."""
        self._model = None

    def run(self, value: Any) -> tuple[Any, Row]:
        """The model's output for an input, and the same as a row of its spec.

        Raises:
            FailedError: it did not load, or raised, or its output is none of its spec.
        """
        model = self._ready()
        self._model = model
        held_bytes = resident_bytes() if self._memory_mib is None else 0
        before = time.perf_counter()
        try:
            output = model(value)
            taken = time.perf_counter() - before
            row = np.asarray(self.node.encode(output))[None]
            row = check_outputs(self.node.name, self.node.spec, row)[0]
        except Exception as error:  # anybody's code
            raise self._failed(error) from error
        self._calls.append(taken)
        if self._memory_mib is None:
            self._weigh(held_bytes)
        return output, row

    def _ready(self) -> Model:
        if self._model is not None:
            return self._model
        if (failure := self.failure) is not None:
            raise FailedError(failure)
        held_bytes = 0
        if self._memory_mib is None:
            gc.collect()
            held_bytes = resident_bytes()
        before = time.perf_counter()
        try:
            model = self.node.load()
        except Exception as error:  # anybody's code
            raise self._failed(error) from error
        self._load_s = time.perf_counter() - before
        if self._memory_mib is None:
            self._grown_bytes = resident_bytes() - held_bytes
        return model

    def _weigh(self, held_bytes: int) -> None:
        """After the first call: later ones find memory that it left to the allocator.

        Others may have loaded since this one was: what loading and the call took are added.

        Args:
            held_bytes: by the process before the call.
        """
        grown_bytes = self._grown_bytes + resident_bytes() - held_bytes
        self._memory_mib = max(self.node.least_mib(), grown_bytes / _MIB)

    def _failed(self, error: Exception) -> FailedError:
        self.unload()
        self.failures += 1
        self._failure = f"{type(error).__name__}: {error}"
        self._failed_at = self._clock()
        return FailedError(self._failure)


def resident_bytes() -> int:
    """Memory that this process takes; 0 where the system does not tell."""
    try:
        pages = int(_PAGES.read_text(encoding="ascii").split()[1])
    except (OSError, ValueError, IndexError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")
