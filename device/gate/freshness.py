"""Our policy: decode where it buys the most time in which the known answer is right.

What is scored is how long the answer that is held for a camera is the true one. A decode is
worth something if the held answer is wrong now (probability p), and only until it would have
been put right anyway: at the stream's next entry, a cheap place to look, whose time d is known
from the entries before. If answers change at the rate k, a decode now is worth

    p * (1 - exp(-k d)) / k        seconds of right answers,

and that over its closure cost is what the optimizer ranks. What follows without further rules:

* A camera whose answer never stays (k large) gets little, although it is "necessary" at every
  look, which is what ranking by p alone, as published, spends the budget on.
* At an entry the cost is one picture and d a whole group; p grows until somebody looks: quiet
  cameras skip entries, and no camera waits for ever.
* Once an entry is decoded the next pictures cost only themselves: the chain goes on while
  things change, and sooner in the group rather than later, as d shrinks towards the next entry.
* In the middle of a group that was skipped, the pending chain makes the cost large: a detection
  waits for the next entry unless that is far or the evidence is strong.

k is learned from feedback, per stream (`drift.py`), and without more p is 1 - exp(-k age). A
trained gate, which knows the sizes since the last look, is evidence beside it, weighed by what
looks show (`online.py`): a network that does not know these cameras does no harm for long.

Spending everything in every round would buy offers now that are worse than those of the next
rounds. Offers below a price (seconds of right answers per ms) are therefore left out, and what
they would have cost is saved. The price is the multiplier of the budget's constraint, followed
in small steps (`Price`).
"""

from __future__ import annotations

import numpy as np

from triparty.device.gate.base import BasePolicy, EntryClock
from triparty.device.gate.columns import PerStream
from triparty.device.gate.drift import Drift
from triparty.device.gate.features import Features, any_task
from triparty.device.gate.online import Blend, log_odds
from triparty.device.gate.policy import Arrivals, Column, Feedback, Offers, Rows
from triparty.device.gate.predictor import Predictor, combine

_LEAST_RATE = 1e-3
_FIRST_STEP, _SLOWING = 0.2, 0.02


class Price:
    """The least that an offer must be worth per ms, so that the budget just suffices.

    What is saved is a reserve for the entries to come, that are dear and worth it. The price
    rises while less is saved than wanted, and falls while more is: in the long run as much is
    spent as is granted. Where nobody says what is saved, it rises in rounds in which something
    above it did not fit. A price that jumps buys in one round what it despises in the next, so
    its steps become small.

    Args:
        step: of its logarithm a round, in the long run.
        saved: wanted share of what can be saved.
        busy: wanted share of the rounds in which something does not fit.
    """

    def __init__(self, *, step: float = 0.005, saved: float = 0.45, busy: float = 0.3) -> None:
        """Everything is worth taking at first."""
        self._step, self._saved, self._busy = step, saved, busy
        self._rounds = 0
        self.value = 0.0

    def follow(self, ratio: Column, picks: Rows, saved: float) -> None:
        """Adjusts to a round: ratios of all its offers, which were taken, what was saved."""
        self._rounds += 1
        if np.isnan(saved):
            did_not_fit = np.count_nonzero(ratio > self.value) > len(picks)
            short = float(did_not_fit) - self._busy
        else:
            short = 2.0 * (self._saved - saved)
        if self.value > 0.0:
            step = max(self._step, _FIRST_STEP / (1.0 + _SLOWING * self._rounds))
            self.value *= float(np.exp(step * short))
        elif short > 0.0 and len(picks):
            self.value = float(ratio[picks].min())


class Freshness(BasePolicy):
    """See the module.

    Args:
        predictor: a trained network, or None: feedback alone.
        price: how saving is done; None: spend every round.
        blends: whether network and drift are weighed by what every look shows; else the
            network alone says how likely an answer is wrong.
        drift: how fast answers change, learned from feedback; None: with its defaults.
    """

    def __init__(
        self,
        predictor: Predictor | None = None,
        *,
        price: Price | None = None,
        blends: bool = True,
        drift: Drift | None = None,
    ) -> None:
        """Has seen nothing."""
        self._drift = Drift() if drift is None else drift
        self._clock, self._price = EntryClock(), price
        self._evidence = None if predictor is None else _Evidence(predictor, blends)
        parts = [] if self._evidence is None else self._evidence.parts
        super().__init__(self._drift, self._clock, *parts)
        self._ratio: Column = np.zeros(0)

    def see(self, arrivals: Arrivals) -> None:
        """Takes in sizes and entries."""
        self._clock.see(arrivals)
        if self._evidence is not None:
            self._evidence.features.see(arrivals)

    def _value(self, arrivals: Arrivals, offers: Offers) -> Column:
        stream, time = offers.stream, arrivals.time[offers.arrivals]
        rate = np.maximum(self._drift.rate(stream), _LEAST_RATE)
        period = self._clock.period(stream)
        ahead = np.where(offers.entry, period, self._clock.until(stream, time))
        seconds = -np.expm1(-rate * ahead) / rate
        wrong = self._drift.wrong(stream, time)
        if self._evidence is not None:
            wrong = self._evidence.wrong(wrong, arrivals, offers)
        value: Column = wrong * seconds
        self._ratio = value / np.maximum(offers.cost, 1e-9)
        if self._price is None:
            return value
        return np.where(self._ratio >= self._price.value, value, -np.inf)

    def chosen(self, offers: Offers, picks: Rows) -> None:
        """Hears what will be decoded, and adjusts the price."""
        super().chosen(offers, picks)
        if self._evidence is not None:
            self._evidence.chosen(offers.stream[picks], self._target_time[picks], picks)
        if self._price is not None:
            self._price.follow(self._ratio, picks, offers.saved)

    def learn(self, feedback: Feedback) -> None:
        """Learns rates, what evidence is worth, and what the predictor is told of feedback."""
        reward = any_task(feedback.reward)
        known = reward == reward
        stream, time = feedback.stream[known], feedback.time[known]
        self._drift.learn(stream, time, reward[known])
        if self._evidence is not None:
            self._evidence.blend.learn(stream, time, reward[known])
            self._evidence.features.learn(feedback)


class _Evidence:
    """What a network says, weighed against what drift says."""

    def __init__(self, predictor: Predictor, blends: bool) -> None:
        self._predictor, self._blends = predictor, blends
        self.features = Features(predictor.network.features)
        self.blend = Blend(2)
        self.parts: list[PerStream] = [self.features, self.blend]
        self._odds: Column = np.zeros((0, 2))

    def wrong(self, drift: Column, arrivals: Arrivals, offers: Offers) -> Column:
        """(m,) how likely the held answer of each stream is wrong."""
        matrix = self.features.matrix(arrivals, offers.arrivals)
        said = combine(self._predictor.probabilities(matrix)).astype(np.float64)
        self._odds = np.stack([log_odds(drift), log_odds(said)], axis=1)
        return self.blend.probabilities(self._odds) if self._blends else said

    def chosen(self, stream: Rows, time: Column, picks: Rows) -> None:
        """Remembers what was said of the offers that were taken."""
        self.features.chosen(stream, time)
        self.blend.chosen(stream, time, self._odds[picks])
