"""How long to wait before a camera is tried again: exponential, with jitter."""

from __future__ import annotations

from dataclasses import dataclass, replace
from random import Random


@dataclass(frozen=True, slots=True)
class Backoff:
    """The state of one camera's retries; pure.

    Attributes:
        first_s: mean wait after the first failure.
        longest_s: the bound that doubling stops at.
        failures: in a row; a connection that held resets them.
    """

    first_s: float = 1.0
    longest_s: float = 60.0
    failures: int = 0

    def failed(self, *, refused: bool = False) -> Backoff:
        """One more failure.

        Args:
            refused: the camera did not accept our credentials. Cameras lock accounts after a
                few of those, so the longest wait comes at once.
        """
        return replace(self, failures=self.failures + (self._most() if refused else 1))

    def held(self, live_s: float) -> Backoff:
        """After a connection that was live: forgets failures if it held long enough.

        A camera that connects and dies at once (flapping) goes on waiting longer.
        """
        return replace(self, failures=0) if live_s >= self.steady_s else self

    @property
    def steady_s(self) -> float:
        """How long a connection must hold to be called good."""
        return max(10 * self.first_s, self.mean_s())

    def mean_s(self) -> float:
        """The mean wait now; 0 without failures."""
        if not self.failures:
            return 0.0
        doublings = min(self.failures - 1, self._most())
        return float(min(self.longest_s, self.first_s * 2.0**doublings))

    def wait_s(self, rng: Random) -> float:
        """A wait drawn from half to one and a half of the mean.

        So a thousand cameras behind one switch do not come back in the same second.
        """
        return self.mean_s() * rng.uniform(0.5, 1.5)

    def _most(self) -> int:
        """As many doublings as the bound allows, and one more."""
        return max(1, int(self.longest_s / self.first_s).bit_length() + 1)
