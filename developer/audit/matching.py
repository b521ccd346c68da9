"""Which row of a table is behind a row on the wire, up to something that keys do not change.

`match` compares *signatures*. With the values themselves as the signature, it reads traffic
with a keyed table; with their sorted absolute values, it reads keyed traffic with the plain
table, because a signed permutation changes neither. Neither does it change lengths, which
leave few tokens to compare.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from triparty.developer.audit.claims import UNKNOWN, Rows, Tokens
from triparty.developer.audit.knowledge import Table
from triparty.developer.audit.lengths import Lengths, precision, squares
from triparty.developer.audit.sessions import Deviations, Ids, read

Signature = Callable[[Rows], Rows]

_EXACT = 1e-5  # of the row's length; above what sums in fp32 add
_ROUNDED = 1.5  # of the relative rounding of the wire; of a whole row it is 0.8


def as_is(rows: Rows) -> Rows:
    """The values themselves."""
    return rows


def sorted_values(rows: Rows) -> Rows:
    """The absolute values of each row in order."""
    return np.sort(np.abs(rows), axis=-1)


def match(traffic: Sequence[Rows], table: Table, signature: Signature) -> Tokens:
    """The token behind each row of each request, where exactly one has its signature.

    Args:
        traffic: (T, D) each, at least one.
        table: the candidates.
        signature: what the key does not change.
    """
    tolerance = max(_EXACT, _ROUNDED * precision(np.concatenate(traffic)))
    lengths = Lengths(table)

    def nearest(rows: Rows, places: Ids | None) -> tuple[Ids, Deviations]:
        tokens, deviations = np.full(len(rows), UNKNOWN), np.full(len(rows), np.inf)
        signatures, found = signature(rows), squares(rows)
        for i, square in enumerate(found):
            place = None if places is None else int(places[i])
            least, most = square * (1 - tolerance) ** 2, square * (1 + tolerance) ** 2
            candidates = lengths.within(least, np.nextafter(most, np.inf), place)
            possible = table.rows[candidates]
            if table.positions is not None:
                possible = possible + table.positions[place]
            off = np.linalg.norm(signature(possible) - signatures[i], axis=-1)
            near = np.flatnonzero(off <= tolerance * np.sqrt(square))
            if len(near):
                deviations[i] = off[near].min() / np.sqrt(square) if square else 0.0
            if len(near) == 1:
                tokens[i] = candidates[near[0]]
        return tokens, deviations

    positions = None if table.positions is None else len(table.positions)
    return read(traffic, nearest, positions=positions, tolerance=tolerance)
