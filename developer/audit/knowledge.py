"""Who attacks with what, and what came of it.

Levels of attackers, each knowing what the lower ones know:

    K0  the cloud alone: the hosted model and the rows that reach it
    K1  and some known plaintext: chat templates, the begin-of-text token
    K2  and the embedding table: public, or from any registered user
    K3  and the public base weights of the model
    K4  and a user who shares a bundle
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from triparty.common.errors import SettingsError

Rows = NDArray[np.float32]
UNKNOWN = -1


class Level(StrEnum):
    """How much an attacker knows; ordered."""

    K0 = "K0"
    K1 = "K1"
    K2 = "K2"
    K3 = "K3"
    K4 = "K4"

    @classmethod
    def parse(cls, text: str) -> frozenset[Level]:
        """Levels as written on a command line: `K2`, `K0,K2`, `K0..K4` or `K0-K4`.

        Raises:
            SettingsError: something else.
        """
        chosen: set[Level] = set()
        for part in text.upper().replace(" ", "").split(","):
            span = re.fullmatch(r"(K[0-4])(?:(?:\.\.|-)(K[0-4]))?", part)
            first, last = (span[1], span[2] or span[1]) if span else ("", "")
            if not first or first > last:
                raise SettingsError(
                    f"no attacker level {part!r}: write K0 to K4, as K2, K0,K2 or K0..K4"
                )
            chosen |= {level for level in cls if first <= level <= last}
        return frozenset(chosen)


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
class Knowledge:
    """What an attacker knows.

    Attributes:
        traffic: the rows (T, D) of each request that reached the cloud, in order.
        table: the plain embedding table; from K2 on.
    """

    traffic: tuple[Rows, ...]
    table: Table


@dataclass(frozen=True, eq=False)
class Recovered:
    """What an attack claims to have found.

    Attributes:
        token_ids: for each request, (T,) the token behind each row, `UNKNOWN` where the
            attack found none or more than one.
    """

    token_ids: tuple[NDArray[np.int64], ...]

    @property
    def share(self) -> float:
        """Share of rows with a token."""
        return float((np.concatenate(self.token_ids) != UNKNOWN).mean())

    def share_right(self, truth: Recovered) -> float:
        """Share of rows whose token is the true one."""
        found, right = np.concatenate(self.token_ids), np.concatenate(truth.token_ids)
        return float(((found == right) & (right != UNKNOWN)).mean())


class Attack(Protocol):
    """An attack: a name, the least knowledge it needs, what it is after."""

    name: str
    level: Level
    target: str

    def mount(self, knowledge: Knowledge) -> Recovered:
        """Attacks."""


@dataclass(frozen=True)
class Findings:
    """What came of an attack.

    Attributes:
        name: of the attack.
        level: of the attacker.
        target: what it was after.
        recovered: share of it that was recovered: of the rows, those whose token was found,
            and is the right one where that can be checked.
        seconds: how long it took.
        rows: how many rows it was given.
        matched: share of the rows for which it named a token.
        checked: whether the tokens named were compared with the true ones.
        control: the same attack's share on rows that it cannot read.
    """

    name: str
    level: str
    target: str
    recovered: float
    seconds: float
    rows: int
    matched: float
    checked: bool
    control: float
