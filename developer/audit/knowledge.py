"""What an attacker has to work with, by level."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from triparty.common.keying import Bundle
from triparty.developer.audit.claims import Rows
from triparty.developer.audit.levels import Level
from triparty.developer.audit.views import ModelView

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Table:
    """An embedding table, with learned positions where the family has them.

    Attributes:
        rows: (V, D) float32.
        positions: (P, D) float32, added to the rows; None where there are none.
    """

    rows: Rows
    positions: Rows | None


@dataclass(frozen=True, eq=False)
class KnownRows:
    """Rows of the traffic of which the plaintext is known: templates, first tokens.

    Attributes:
        keyed: (m, D) float32, as they went over the wire, no two of one token and position.
        plain: (m, d) float32, the same before they were keyed.
        token_ids: (m,) the tokens, where no positions are added; None where nobody noted them.
    """

    keyed: Rows
    plain: Rows
    token_ids: NDArray[np.int64] | None = None


@dataclass(frozen=True, eq=False)
class Knowledge:
    """What an attacker knows. What the level does not give is None.

    Attributes:
        traffic: the rows (T, D) of each request that reached the cloud, in order; K0.
        starts: for each request, the position of its first row in its session; empty where
            it was not recorded; K0.
        language: texts (T,) of the language, in tokens of the model, whose tokenizer is
            public; not the texts behind the traffic; K0.
        hosted: the protected model, as the cloud holds it; K0.
        other: a second instance of the same model under another key, if there is one; K0.
        known: rows with their plaintext; K1.
        table: the plain embedding table; K2.
        base: the public weights that the private model began as; K3.
        bundle: a bundle of this very cohort; K4.
        noise: how much noise the devices add, as a share of a row's root mean square; K0, as
            everybody may know it.
        unigrams: (V,) how often each token occurs in text like the traffic, adding up to 1;
            None if nobody counted; K0.
    """

    traffic: tuple[Rows, ...]
    hosted: ModelView | None = None
    other: ModelView | None = None
    known: KnownRows | None = None
    table: Table | None = None
    base: ModelView | None = None
    bundle: Bundle | None = None
    starts: tuple[int, ...] = ()
    noise: float = 0.0
    unigrams: NDArray[np.float64] | None = None
    language: tuple[NDArray[np.int64], ...] = ()

    def at(self, level: Level) -> Knowledge:
        """What an attacker of that level knows of it."""
        return replace(
            self,
            known=self.known if level >= Level.K1 else None,
            table=self.table if level >= Level.K2 else None,
            base=self.base if level >= Level.K3 else None,
            bundle=self.bundle if level >= Level.K4 else None,
        )

    @property
    def rows(self) -> Rows:
        """(N, D) all rows of the traffic."""
        return np.concatenate(self.traffic) if self.traffic else np.zeros((0, 0), np.float32)


def given(thing: T | None) -> T:
    """What the attacker's level gives, for attacks that said so in `lacks`.

    Raises:
        TypeError: the attack is mounted with less than it needs.
    """
    if thing is None:
        raise TypeError("the attack is mounted with less knowledge than it needs")
    return thing


def distinct(rows: Rows) -> NDArray[np.int64]:
    """(N,) the number of each row among the different ones, in order of appearance.

    A fixed key sends one token always to one row: who counts equal rows counts tokens.
    """
    numbers: dict[bytes, int] = {}
    return np.array([numbers.setdefault(row.tobytes(), len(numbers)) for row in rows], np.int64)
