"""How much decoding a round may do: a token bucket in CPU milliseconds.

Pure numbers: no clock, no decoder. A token is a millisecond of decoder CPU. Each round adds its
budget; what is not used is kept for at most a second, so that an expensive closure can be saved
up for. A closure is charged by its estimate when it is chosen, and settled by its measured cost
when it is done.

Laws: whatever the order of calls, what was charged never exceeds the budget of the rounds so
far by more than one closure. Once settled, nor does measured CPU, however wrong the estimates
were. A closure above a second's budget is never admitted: its stream waits for the next entry.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class BudgetCounters:
    """What happened to the budget, in CPU ms.

    Attributes:
        rounds: begun.
        granted: budget of all rounds.
        charged: estimates of what was admitted.
        measured: what those turned out to cost, where settled.
        lapsed: budget that nobody used within a second.
    """

    rounds: int = 0
    granted: float = 0.0
    charged: float = 0.0
    measured: float = 0.0
    lapsed: float = 0.0


class TokenBucket:
    """The decode budget that all streams share.

    Args:
        round_ms: CPU ms granted each round, above 0.
        rounds_per_second: how many rounds a second has.
    """

    def __init__(self, round_ms: float, rounds_per_second: float = 25.0) -> None:
        """Begins empty; `begin_round` fills it."""
        self.counters = BudgetCounters()
        self._rounds_per_second, self._tokens = rounds_per_second, 0.0
        self.grant(round_ms)

    def grant(self, round_ms: float) -> None:
        """From the next round on, another budget; what was saved up and is owed stays."""
        if not (round_ms > 0 and self._rounds_per_second > 0):
            raise ValueError(
                "a budget is above 0 ms a round and 0 rounds a second, "
                f"got {round_ms} and {self._rounds_per_second}"
            )
        self._round_ms = round_ms
        self._second_ms = max(round_ms * self._rounds_per_second, round_ms)

    @property
    def second_ms(self) -> float:
        """The budget of one second: the most that a closure may cost, or that is saved up."""
        return self._second_ms

    @property
    def spendable(self) -> float:
        """CPU ms that may be spent now; 0 while a debt is being paid off."""
        return max(self._tokens, 0.0)

    def begin_round(self) -> float:
        """Grants a round's budget; returns what is spendable."""
        self.counters.rounds += 1
        self.counters.granted += self._round_ms
        self._tokens += self._round_ms
        if self._tokens > self._second_ms:
            self.counters.lapsed += self._tokens - self._second_ms
            self._tokens = self._second_ms
        return self.spendable

    def admits(self, cost: float) -> bool:
        """Whether a closure may be decoded now: the last one admitted may leave a debt."""
        return self._tokens > 0 and cost <= self._second_ms

    def charge(self, cost: float) -> None:
        """Takes the estimated CPU ms of a closure that was admitted.

        Raises:
            ValueError: it is not admitted, or negative.
        """
        if cost < 0 or not self.admits(cost):
            raise ValueError(
                f"a closure of {cost:.3g} ms is not admitted with {self._tokens:.3g} ms left "
                f"and {self._second_ms:.3g} ms a second"
            )
        self._tokens -= cost
        self.counters.charged += cost

    def settle(self, charged: float, measured: float) -> None:
        """Puts the measured CPU ms of a closure in the place of its estimate."""
        self._tokens = min(self._tokens + charged - measured, self._second_ms)
        self.counters.measured += measured
