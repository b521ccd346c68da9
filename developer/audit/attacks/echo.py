"""Echo: what a model says comes back as the next row.

With the interface `embeddings` the device sends the row of the token that it picked from the
answer before. The cloud sees both, so it learns over time which output index means the token
of which row: of all indices, the one whose logit is highest, against its own mean, just before
the row comes. That links the two alphabets, without a plain token: what was asked can then be
counted together with what was answered, and the cloud can compute embeddings of its own
choice.

Secret scales of the logits hide which index is the largest of an answer. They do not hide
when an index is larger than it usually is, up to its sign, which its skewness tells.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from triparty.developer.audit.attack import Target
from triparty.developer.audit.claims import UNKNOWN, Links
from triparty.developer.audit.controls import unrelated_rows
from triparty.developer.audit.decoding import sessions
from triparty.developer.audit.knowledge import Knowledge, distinct, given
from triparty.developer.audit.levels import Level
from triparty.developer.audit.running import logits

Values = NDArray[np.float64]

_SCALED = 1 / 3  # of the indices lean to the other side
_EXPECTED = 0.5  # of what an index usually gets is held against it


class Echo:
    """Links rows to output indices by what was answered just before them."""

    name = "echo"
    level = Level.K0
    target = Target.TOKENS
    cites = "thesis 4.4.3, on permuted one-hot input"
    means = "The cloud learns which answers and which input rows are the same secret token."
    remedy = "Run the head on the device, so that the cloud sees no logits."

    def lacks(self, knowledge: Knowledge) -> str | None:
        """It needs a decoder and sessions of more than one row."""
        if knowledge.hosted is None or not knowledge.traffic:
            return "there is no traffic to a hosted model"
        if knowledge.hosted.plan.task != "causal-lm":
            return "its answers do not come back as rows"
        if not any(len(rows) > 1 for rows in knowledge.traffic) and not knowledge.starts:
            return "it is not known which rows follow which"
        return None

    def mount(self, knowledge: Knowledge) -> Links:
        """The output index of each different row that followed another one."""
        model: Any = given(knowledge.hosted).load()
        model.float()
        numbers = distinct(knowledge.rows)
        at = np.split(numbers, np.cumsum([len(rows) for rows in knowledge.traffic])[:-1])
        answers, following = [], []
        for requests in sessions(knowledge.traffic, knowledge.starts):
            rows = np.concatenate([knowledge.traffic[number] for number in requests])
            answers.append(logits(model, rows)[:-1])
            following.append(np.concatenate([at[number] for number in requests])[1:])
        return Links(numbers, _linked(np.concatenate(answers), np.concatenate(following)))

    def control(self, knowledge: Knowledge) -> Knowledge:
        """Rows that the model does not answer to."""
        return replace(knowledge, traffic=unrelated_rows(knowledge.traffic))


def _linked(answers: Values, following: NDArray[np.int64]) -> NDArray[np.int64]:
    """(M,) for each row number, the index that stands out most before it.

    Args:
        answers: (N, O) logits.
        following: (N,) the number of the row that came after each.
    """
    surprise = _surprise(answers)
    count = int(following.max()) + 1
    seen = np.zeros((count, answers.shape[1]))
    np.add.at(seen, following, surprise)
    times = np.bincount(following, minlength=count)
    return np.where(times > 0, seen.argmax(axis=1), UNKNOWN)


def _surprise(answers: Values) -> Values:
    """(N, O) how much likelier each index is than it usually is.

    Logits as they are lean to one side: few are high, many are low. Under secret scales, which
    may be negative, half of the indices lean to the other one; these are turned, and all are
    measured in their own standard deviations.
    """
    apart = answers - answers.mean(axis=0)
    spread = apart.std(axis=0)
    apart = apart / np.where(spread > 0, spread, 1.0)
    negative = (apart**3).mean(axis=0) < 0
    if negative.mean() > _SCALED:
        turned: Values = apart * np.where(negative, -1.0, 1.0)
        return turned
    chances = answers - answers.max(axis=1, keepdims=True)
    chances -= np.log(np.exp(chances).sum(axis=1, keepdims=True))
    usual: Values = chances - _EXPECTED * chances.mean(axis=0)
    return usual
