"""Frequency analysis: rows under a fixed key are a substitution cipher, whatever the key.

Equal rows are equal tokens, and so are equal keyed ids. Who has text of the language needs
neither weights nor table (through noise, rows of one token are still nearer to each other than
to those of others): counts of symbols and of pairs of symbols tell which is which, the
better the longer the traffic. Published figures for a secret order of a large vocabulary
(AloePri, arXiv:2603.01499, token frequency matching): top-10 / top-100 3.2 % / 16.5 % with text
of the same distribution, 0.14 % / 1.0 % without any.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from triparty.developer.audit.attack import Target
from triparty.developer.audit.averages import numbered
from triparty.developer.audit.claims import UNKNOWN, Rows, Tokens
from triparty.developer.audit.controls import turned_apart
from triparty.developer.audit.deciphering import Counts, Ids, by_pairs
from triparty.developer.audit.knowledge import Knowledge, distinct
from triparty.developer.audit.levels import Level
from triparty.developer.audit.views import ModelView


class Frequency:
    """Solves the substitution cipher that rows are, by pairs of symbols."""

    name = "frequency"
    level = Level.K0
    target = Target.TOKENS
    cites = "frequency analysis: arXiv:2603.01499, table 4; FAQ: Vogelstein et al. 2015"
    means = "The cloud alone, with nothing but text of the language, reads frequent words."
    remedy = "Keys of small cohorts, changed before much traffic has gathered; decoys."

    def lacks(self, knowledge: Knowledge) -> str | None:
        """It needs traffic whose rows do not depend on their place, and text."""
        if not knowledge.traffic or not knowledge.language:
            return "there is no traffic, or no text of its language"
        if knowledge.hosted is not None and _adds_positions(knowledge.hosted):
            return "positions are added to rows: equal tokens have unequal rows"
        return None

    def mount(self, knowledge: Knowledge) -> Tokens:
        """The likeliest token of each different row; none if no row comes again."""
        noise = knowledge.noise
        symbols = numbered(knowledge.rows, noise) if noise else distinct(knowledge.rows)
        if int(symbols.max()) + 1 == len(symbols):
            return Tokens(tuple(np.full(len(r), UNKNOWN, np.int64) for r in knowledge.traffic))
        sessions = _sessions(symbols, knowledge.traffic)
        seen = Counts.of(sessions)
        tokens = np.full(int(symbols.max()) + 1, UNKNOWN, np.int64)
        tokens[seen.symbols] = by_pairs(seen, Counts.of(knowledge.language))
        ends = np.cumsum([len(rows) for rows in knowledge.traffic])[:-1]
        return Tokens(tuple(np.split(tokens[symbols], ends)))

    def control(self, knowledge: Knowledge) -> Knowledge:
        """The same rows with a key for each, so that none is equal to another."""
        return replace(knowledge, traffic=turned_apart(knowledge.traffic))


def _adds_positions(hosted: ModelView) -> bool:
    """Whether devices add positions: where the cloud looks the rows up, they do not."""
    return "positions" in hosted.plan.device_tables() and hosted.embedding() is None


def _sessions(symbols: Ids, traffic: Sequence[Rows]) -> list[Ids]:
    """The symbols of each session: a question and the single rows that follow it."""
    starts, at = [], 0
    for rows in traffic:
        if len(rows) > 1:
            starts.append(at)
        at += len(rows)
    return [part for part in np.split(symbols, starts) if len(part)]
