"""What the gate costs per packet, without demux: features, network, greedy; and with typing.

CPU time of the process, all threads counted, over rounds of one packet a stream, at two numbers
of streams. Picks take a fifth of what decoding all would cost, and their feedback comes a round
later, as in service. What the specification bounds is typing and gating together: cases by
codec and container add what reading a header takes (`gating_typer`), measured in the same run.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import numpy as np

from benchmarks.gating_typer import STREAMS, Made, typing_microseconds
from benchmarks.harness import Case, Effort, case
from triparty.device.gate.features import PUBLISHED, FeatureChoice
from triparty.device.gate.freshness import Freshness, Price
from triparty.device.gate.learned import Learned
from triparty.device.gate.optimizer import choose
from triparty.device.gate.policy import Arrivals, Feedback, Offers, Policy
from triparty.device.gate.predictor import Network, Predictor, random_weights

TARGET_US = 6.0  # of typing and gating together
COUNTS = (200, 1000)
REFERENCE = "thesis 2.5.2, table 2.4: 7 us a frame on an edge server, 154 us on a phone"
GROUP = 50
PERIOD_S = 0.04
SHARE = 0.2
KEY_MS, OTHER_MS = 20.0, 2.0


def _predictor(network: Network) -> Predictor:
    return Predictor(network, random_weights(network, rng=np.random.default_rng(0)))


def ours() -> Policy:
    """The default policy with a network."""
    return Freshness(_predictor(Network("extended", FeatureChoice())), price=Price())


def _feedback_only() -> Policy:
    return Freshness(price=Price())


def _published() -> Policy:
    features = FeatureChoice(PUBLISHED, 5, "paper")
    return Learned(_predictor(Network("published", features)))


class _Fleet:
    """Streams with a packet a round; phases of their groups differ."""

    def __init__(self, streams: int) -> None:
        self._rng = np.random.default_rng(1)
        self._phase = self._rng.integers(GROUP, size=streams)
        self._pending = np.zeros(streams)
        self.rows = np.arange(streams)

    def round(self, number: int) -> tuple[Arrivals, Offers]:
        """The packets of a round, and what decoding each would cost."""
        count = len(self.rows)
        entry = (number + self._phase) % GROUP == 0
        own = np.where(entry, KEY_MS, OTHER_MS)
        self._pending = np.where(entry, 0.0, self._pending) + own
        every = np.ones(count, bool)
        arrivals = Arrivals(
            stream=self.rows,
            time=np.full(count, number * PERIOD_S),
            size=self._rng.lognormal(8.0, 0.5, count),
            type=np.where(entry, 1, 2).astype(np.int8),
            reference=every,
            entry=entry,
            slice_qp=self._rng.integers(20, 40, count).astype(np.float64),
        )
        places = np.arange(count)
        now = number * PERIOD_S
        cost = self._pending.copy()
        return arrivals, Offers(now, places, self.rows, cost, own, entry, every)

    def looked(self, arrivals: Arrivals, picks: np.ndarray, now: float) -> Feedback:
        """What the models say of the picks."""
        self._pending[picks] = 0.0
        reward = (self._rng.random((len(picks), 1)) < 0.1).astype(np.float64)
        chosen = np.ones(len(picks), bool)
        return Feedback(now, self.rows[picks], arrivals.time[picks], reward, chosen)


def microseconds(make: Callable[[], Policy], leftover: str, streams: int, rounds: int) -> float:
    """CPU us a packet of the calls that the loop makes to policy and optimizer."""
    policy, fleet = make(), _Fleet(streams)
    policy.join(streams)
    budget = SHARE * streams * (KEY_MS + (GROUP - 1) * OTHER_MS) / GROUP
    late: Feedback | None = None
    spent = 0
    for number in range(-GROUP, rounds):  # the first group warms up
        arrivals, offers = fleet.round(number + GROUP)
        start = time.process_time_ns()
        if late is not None:
            policy.learn(late)
        policy.see(arrivals)
        value = policy.value(arrivals, offers)
        picks = choose(value, offers.cost, budget, leftover=leftover).picks
        policy.chosen(offers, picks)
        if number >= 0:
            spent += time.process_time_ns() - start
        late = fleet.looked(arrivals, picks, offers.now)
    return spent / 1000 / (rounds * streams)


def _case(name: str, make: Callable[[], Policy], leftover: str, streams: int) -> Case:
    @case(
        f"gate CPU a packet, {name}, {streams} streams",
        unit="us",
        better="lower",
        reference=REFERENCE,
    )
    def measure(effort: Effort) -> Iterator[float]:
        for _ in range(effort.runs):
            yield microseconds(make, leftover, streams, _rounds(effort))

    return measure


def _typed(made: Made, streams: int) -> Case:
    @case(
        f"type and gate a packet, ours, {streams} streams, {made.name}",
        unit="us",
        better="lower",
        target=TARGET_US,
        reference=REFERENCE,
    )
    def measure(effort: Effort) -> Iterator[float]:
        for typing in typing_microseconds(made, effort):
            yield typing + microseconds(ours, "scan", streams, _rounds(effort))

    return measure


def _rounds(effort: Effort) -> int:
    return 50 if effort.quick else 400


OVERHEAD = (
    *(
        _case(name, make, leftover, streams)
        for name, make, leftover in (
            ("ours", ours, "scan"),
            ("ours without a network", _feedback_only, "scan"),
            ("published design", _published, "paper"),
        )
        for streams in COUNTS
    ),
    *(_typed(made, streams) for streams in COUNTS for made in STREAMS),
)
