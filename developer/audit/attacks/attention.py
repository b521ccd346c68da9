"""What attention maps show as they are.

A key that leaves every answer as it was leaves every attention map as it was, so the cloud
sees which row looks at which: where sentences begin, what refers to what, what repeats. Which
head is which is hidden by the order of heads, and nothing else is.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from triparty.developer.audit.attack import Target
from triparty.developer.audit.claims import Seen
from triparty.developer.audit.decoding import decodes, sessions
from triparty.developer.audit.knowledge import Knowledge, given
from triparty.developer.audit.levels import Level
from triparty.developer.audit.running import Running, Values

_STANDS_OUT = 0.5  # share of a head's attention that one row gets


class AttentionMaps:
    """Looks at the attention that the hosted model gives."""

    name = "attention"
    level = Level.K0
    target = Target.TOKENS
    cites = "thesis 4.4, equation of attention under permutation"
    means = "The cloud sees which word looks at which, though not the words."
    remedy = "None that leaves the answers as they are."

    def lacks(self, knowledge: Knowledge) -> str | None:
        """It needs a decoder and traffic to it."""
        if knowledge.hosted is None or not knowledge.traffic:
            return "there is no traffic to a hosted model"
        return decodes(knowledge.hosted)

    def mount(self, knowledge: Knowledge) -> Seen:
        """How many rows look at one other row above all, and where that is."""
        running = Running(given(knowledge.hosted))
        strongest, distances, first = [], [], []
        for requests in sessions(knowledge.traffic, knowledge.starts):
            running.forget()
            rows = np.concatenate([knowledge.traffic[number] for number in requests])
            others = _to_others(running.read(rows).attention)
            strongest.append(others.max(axis=(0, 1, 3)))
            flat = others.max(axis=(0, 1))
            distances.append(np.arange(len(rows)) - flat.argmax(axis=-1))
            first.append(flat.argmax(axis=-1) == 0)
        clear = np.concatenate(strongest) >= _STANDS_OUT
        share = float(clear.mean())
        if not clear.any():
            return Seen({}, 0.0)
        return Seen(
            {
                "rows that look at one other row above all": share,
                "of these, at the first row": float(np.concatenate(first)[clear].mean()),
                "of these, rows back in the median": float(
                    np.median(np.concatenate(distances)[clear])
                ),
            },
            share,
        )

    def control(self, knowledge: Knowledge) -> Knowledge:
        """Every row in a session by itself, where there is nothing to look at."""
        alone = tuple(row[None] for row in knowledge.rows)
        return replace(knowledge, traffic=alone, starts=())


def _to_others(attention: Values) -> Values:
    """(B, H, T, T) attention to other rows than the own one."""
    others = attention.copy()
    others[..., np.arange(others.shape[2]), np.arange(others.shape[3])] = 0.0
    return others
