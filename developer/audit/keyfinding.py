"""The key between two readings of one model, found from their weights alone.

Two beginnings, by what the residual's key is: coordinates that trade places keep the sorted
values of their row in every matrix; a rotation keeps the spectrum of what they write and read.
Either leads to a first guess, under which neurons of each layer can be told apart; they lead to
a better key, and so on in turn (Git Re-Basin, Ainsworth et al., does the same to merge models).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from triparty.developer.audit.claims import Matrix
from triparty.developer.audit.isometries import nearest_rotation
from triparty.developer.audit.pairing import MAX_ASSIGNED, Pairs, assigned, paired, unit
from triparty.developer.audit.reading import Neurons, Reading

PLAUSIBLE = 0.6
"""The likeness from which on places are taken to have been traded: rotated ones reach 0.3."""

MAX_TURNS = 20
CERTAIN = 0.9
"""The likeness beyond which no second beginning is tried."""

_QUANTILES = 128
_LEAST_GAIN = 1e-3  # of a turn that is worth another one


@dataclass(frozen=True, eq=False)
class Found:
    """A key, and how well it explains one reading by the other.

    Attributes:
        key: (d, D) `second == first @ key`.
        pairs: the neurons of each group under it.
        likeness: mean cosine, over all neurons, of what should be the same column.
    """

    key: Matrix
    pairs: Mapping[str, Pairs]
    likeness: float


def places_key(first: Reading, second: Reading) -> Found:
    """The key, if coordinates of the residual trade places and change signs at most."""
    left, right = _sorted_rows(first, second), _sorted_rows(second, first)
    guess = _monomial(_closeness(left, right))
    return _alternated(first, second, guess, _best_places)


def rotation_key(first: Reading, second: Reading) -> Found:
    """The key, if it is any matrix with orthonormal rows."""
    found = _alternated(first, second, _by_spectrum(first, second), best_rotation)
    if found.likeness >= CERTAIN or not _angled(first, second):
        return found
    again = _alternated(first, second, by_angles(_angled(first, second)), best_rotation)
    return max(found, again, key=lambda one: one.likeness)


def found_key(first: Reading, second: Reading) -> Found:
    """The key of the narrower kind, if it explains enough; else a rotation.

    A rotation always explains a little more than the trade of places that it should be,
    because it also fits what training or noise changed.
    """
    if first_width(first) == first_width(second):
        found = places_key(first, second)
        if found.likeness >= PLAUSIBLE:
            return found
    return rotation_key(first, second)


def first_width(reading: Reading) -> int:
    """D, the width of the residual."""
    return len(next(iter(reading.neurons.values())).sides[0].matrix)


def _alternated(
    first: Reading, second: Reading, key: Matrix, better: Callable[[Matrix, Matrix], Matrix]
) -> Found:
    """Neurons by the key, the key by neurons, until nothing changes."""
    best = _explained(first, second, key)
    for _ in range(MAX_TURNS):
        key = better(*_evidence(first, second, best.pairs))
        found = _explained(first, second, key)
        if found.likeness <= best.likeness + _LEAST_GAIN:
            return found if found.likeness > best.likeness else best
        best = found
    return best


def _explained(first: Reading, second: Reading, key: Matrix) -> Found:
    pairs = {
        name: paired(group, second.neurons[name], key) for name, group in _both(first, second)
    }
    cosines = []
    for name, group in _both(first, second):
        for a, b in zip(group.sides, second.neurons[name].sides, strict=True):
            left = unit(key.T @ a.matrix)[:, pairs[name].first]
            right = unit(b.matrix)[:, pairs[name].second]
            cosine = np.einsum("dn,dn->n", left, right)
            cosines.append(np.abs(cosine) if a.scaled else cosine)
    return Found(key, pairs, float(np.concatenate(cosines).mean()))


def _both(first: Reading, second: Reading) -> Iterator[tuple[str, Neurons]]:
    """The groups that both have."""
    return ((name, group) for name, group in first.neurons.items() if name in second.neurons)


def _evidence(
    first: Reading, second: Reading, pairs: Mapping[str, Pairs]
) -> tuple[Matrix, Matrix]:
    """(d, n) and (D, n): columns of both readings that are the same but for the key."""
    left, right = [], []
    for name, group in _both(first, second):
        one = pairs[name]
        for a, b in zip(group.sides, second.neurons[name].sides, strict=True):
            mine, other = a.matrix[:, one.first], b.matrix[:, one.second]
            if a.scaled:
                mine, other = unit(mine), unit(other) * one.signs
            scale = np.sqrt(mine.shape[1]) / np.linalg.norm(mine)
            left.append(mine * scale)
            right.append(other * np.sqrt(other.shape[1]) / np.linalg.norm(other))
    for name, row in first.vectors.items():
        if name in second.vectors:
            left.append(_sized(row))
            right.append(_sized(second.vectors[name]))
    return np.hstack(left), np.hstack(right)


def _sized(row: Matrix) -> Matrix:
    columns = row.reshape(len(row), -1)
    made: Matrix = columns * np.sqrt(columns.shape[1]) / max(np.linalg.norm(columns), 1e-30)
    return made


def _best_places(left: Matrix, right: Matrix) -> Matrix:
    """The signed permutation nearest to `right == key.T @ left`."""
    products = left @ right.T
    return _monomial(np.abs(products) + _norm_gap(left, right), products)


def _norm_gap(left: Matrix, right: Matrix) -> Matrix:
    squares = [np.einsum("dn,dn->d", side, side) for side in (left, right)]
    made: Matrix = -0.5 * (squares[0][:, None] + squares[1][None, :])
    return made


def _monomial(similarity: Matrix, signs: Matrix | None = None) -> Matrix:
    places = assigned(similarity)
    rows = np.arange(len(places))
    key = np.zeros_like(similarity)
    key[rows, places] = 1.0
    if signs is not None:
        key[rows, places] = np.where(signs[rows, places] < 0, -1.0, 1.0)
    return key


def best_rotation(left: Matrix, right: Matrix) -> Matrix:
    """The matrix with orthonormal rows nearest to `right == key.T @ left` (Procrustes)."""
    return nearest_rotation(left @ right.T)


def _closeness(left: Matrix, right: Matrix) -> Matrix:
    """Minus the squared distance of every row from every other."""
    squares = [np.einsum("df,df->d", side, side) for side in (left, right)]
    made: Matrix = 2 * left @ right.T - squares[0][:, None] - squares[1][None, :]
    return made


def _sorted_rows(reading: Reading, other: Reading) -> Matrix:
    """(d, f) what trading places on the other axis does not change in a coordinate's rows."""
    features = []
    for _, group in _both(reading, other):
        for side in group.sides:
            values = unit(side.matrix) if side.scaled else side.matrix
            ordered = np.sort(np.abs(values), axis=1)
            ends = np.linspace(0, ordered.shape[1] - 1, min(_QUANTILES, ordered.shape[1]))
            features.append(_spread(ordered[:, ends.astype(np.int64)]))
    for mine, its in ((reading.lengths, other.lengths), (reading.vectors, other.vectors)):
        features += [
            _spread(np.abs(mine[name]).reshape(len(mine[name]), -1))
            for name in mine
            if name in its
        ]
    return np.hstack(features)


def _spread(values: Matrix) -> Matrix:
    """In units of how much rows differ, so that each matrix has its say."""
    centred = values - values.mean(axis=0)
    made: Matrix = centred / max(np.sqrt((centred**2).mean() * values.shape[1]), 1e-30)
    return made


def _by_spectrum(first: Reading, second: Reading) -> Matrix:
    """Principal axes of both readings, their signs made to agree.

    Every matrix has its own second moments in the residual, and all of them are rotated alike.
    In the axes of their sum, those of one reading are those of the other but for the sign of
    each axis, which are the leading eigenvector of all products entry by entry.
    """
    moments = [
        _moments(reading, other) for reading, other in ((first, second), (second, first))
    ]
    width = len(moments[0][0])
    axes = [np.linalg.eigh(sum(each))[1][:, ::-1][:, :width] for each in moments]
    agreement = np.zeros((width, width))
    for mine, its in zip(*moments, strict=True):
        one, two = axes[0].T @ mine @ axes[0], axes[1].T @ its @ axes[1]
        agreement += one * two
    np.fill_diagonal(agreement, 0.0)
    scale = np.sqrt(np.maximum(np.abs(agreement).sum(axis=0), 1e-30))
    signs = np.sign(np.linalg.eigh(agreement / np.outer(scale, scale))[1][:, -1])
    key: Matrix = (axes[0] * np.where(signs < 0, -1.0, 1.0)) @ axes[1].T
    return _global_sign(first, second, key)


def by_angles(matrices: Sequence[tuple[Matrix, Matrix]]) -> Matrix:
    """A rotation from columns told apart by their lengths and the angles between them.

    Args:
        matrices: (d, n) and (D, n) of both readings, at most `MAX_ASSIGNED` columns each.
    """
    left, right = [], []
    for a, b in matrices:
        places = assigned(_closeness(_angles(a), _angles(b)))
        left.append(unit(a))
        right.append(unit(b)[:, places])
    return best_rotation(np.hstack(left), np.hstack(right))


def _angled(first: Reading, second: Reading) -> list[tuple[Matrix, Matrix]]:
    """Matrices of both readings whose columns keep their length, and are not too many."""
    return [
        (a.matrix, b.matrix)
        for name, group in _both(first, second)
        for a, b in zip(group.sides, second.neurons[name].sides, strict=True)
        if not a.scaled and group.count <= MAX_ASSIGNED
    ]


def _angles(matrix: Matrix) -> Matrix:
    """(n, f) the length of each column and the sorted products with all columns."""
    columns = matrix / np.sqrt((matrix**2).sum(axis=0).mean())
    products = np.sort(columns.T @ columns, axis=1)
    ends = np.linspace(0, len(products) - 1, min(_QUANTILES, len(products)))
    lengths = np.linalg.norm(columns, axis=0)[:, None]
    return np.hstack([_spread(products[:, ends.astype(np.int64)]), _spread(lengths)])


def _global_sign(first: Reading, second: Reading, key: Matrix) -> Matrix:
    """Which of a key and its negative is right, by the mean of what is not scaled."""
    total = 0.0
    for name, group in _both(first, second):
        for a, b in zip(group.sides, second.neurons[name].sides, strict=True):
            if not a.scaled:
                total += float((key.T @ a.matrix.mean(axis=1)) @ b.matrix.mean(axis=1))
    return key if total >= 0 else -key


def _moments(reading: Reading, other: Reading) -> list[Matrix]:
    made = []
    for _, group in _both(reading, other):
        for side in group.sides:
            matrix = unit(side.matrix) if side.scaled else side.matrix
            moment = matrix @ matrix.T
            made.append(moment / np.trace(moment))
    return made
