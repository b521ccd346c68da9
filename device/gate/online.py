"""Learning while gating: how far each kind of evidence is to be trusted on these cameras.

A network knows cameras that it was trained on; drift knows how often answers changed here, but
not what the packets say. Both are evidence about one question: is the held answer wrong? Their
log-odds are added with weights that are learned from every look, of all streams together, by
logistic regression in small bounded steps. The weights begin with little trust in what was
learned elsewhere: drift counts most.

The thesis leaves online updates to future work (2.4.2); the network itself stays as it is.
"""

from __future__ import annotations

from typing import ClassVar, Final

import numpy as np

from triparty.device.gate.columns import PerStream
from triparty.device.gate.policy import Column, Rows

LARGEST_ODDS: Final = 6.0
_LARGEST_WEIGHT: Final = 3.0
_FIRST_TRUST: Final = 0.1


class Blend(PerStream):
    """Evidence in, one probability out; remembers what it said of each stream's last choice.

    Args:
        kinds: pieces of evidence; the first counts most at the beginning.
        rate: of the steps, over the evidence's running mean square.
    """

    fills: ClassVar = {"_asked": np.nan, "_evidence": 0.0}

    def __init__(self, kinds: int, *, rate: float = 0.1) -> None:
        """Trusts the first kind of evidence, and a little the others."""
        self._rate = rate
        self.weights = np.full(kinds + 1, _FIRST_TRUST)
        self.weights[0] = 1.0 - (kinds - 1) * _FIRST_TRUST
        self.weights[-1] = 0.0  # of the bias
        self._square = np.ones(kinds + 1)
        self._asked: Column = np.zeros(0)  # time of the last choice
        self._evidence: Column = np.zeros((0, kinds + 1))  # that it rested on

    def probabilities(self, evidence: Column) -> Column:
        """(n,) from evidence (n, kinds), log-odds or anything else that may tell."""
        odds: Column = _with_bias(evidence) @ self.weights
        return 0.5 * (1.0 + np.tanh(0.5 * np.clip(odds, -LARGEST_ODDS, LARGEST_ODDS)))

    def chosen(self, stream: Rows, time: Column, evidence: Column) -> None:
        """Remembers what choices rested on, until their feedback comes."""
        self._asked[stream] = time
        self._evidence[stream] = _with_bias(evidence)

    def learn(self, stream: Rows, time: Column, reward: Column) -> None:
        """Takes in feedback, (n,) each; what is not of a stream's last choice is left out."""
        known = self._asked[stream] == time
        if not known.any():
            return
        evidence, reward = self._evidence[stream[known]], reward[known]
        error = reward - self.probabilities(evidence[:, :-1])
        slope = (error[:, None] * evidence).mean(axis=0)
        self._square += 0.01 * ((evidence**2).mean(axis=0) - self._square)
        step = self._rate * min(1.0, len(reward) / 8.0) * slope / np.maximum(self._square, 0.1)
        self.weights = np.clip(self.weights + step, -_LARGEST_WEIGHT, _LARGEST_WEIGHT)
        self._asked[stream[known]] = np.nan


def log_odds(probability: Column) -> Column:
    """log(p / (1 - p)), bounded."""
    bound = 1.0 / (1.0 + np.exp(LARGEST_ODDS))
    inside = np.minimum(np.maximum(probability, bound), 1.0 - bound)
    odds: Column = np.log(inside / (1.0 - inside))
    return odds


def _with_bias(evidence: Column) -> Column:
    return np.concatenate([evidence, np.ones((len(evidence), 1))], axis=1)
