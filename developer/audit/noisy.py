"""Reading rows that carry noise: a key fitted to pairs or to the whole traffic, then Bayes.

The attacker knows the scheme, the amount of noise, the embedding table and how often tokens
occur. A keyed row is `E[t] @ R` plus noise of known size, so the traffic is a mixture of V
Gaussians whose centres are known but for the key R. Expectation-maximisation (Dempster, Laird
and Rubin, 1977) alternates: which token is behind each row, given the key; which key fits
best, given the tokens (Procrustes for rotations, an assignment for permutations).

Shapes: `V` tokens, `d` width of the table, `D` width of the rows, `N` rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from triparty.developer.audit.claims import Matrix

Project = Callable[[Matrix], Matrix]
_BLOCK_ELEMENTS = 1 << 22
_FLOOR = 1e-4  # of a mean row's square: what fp32 and bf16 leave even without noise
_WARMTH, _COOLING = 0.8, 0.85  # noise that is assumed at first, beside what there is
_FITS = 1.3  # squared distances over what the noise makes of them, under the right key


@dataclass(frozen=True, eq=False)
class Sent:
    """Rows that were sent.

    Attributes:
        rows: (N, D).
        placed: (N, d) what positions add to each plain row; None where they add nothing.
    """

    rows: Matrix
    placed: Matrix | None = None

    def first(self, count: int) -> Sent:
        """The first rows."""
        return Sent(self.rows[:count], None if self.placed is None else self.placed[:count])

    def blocks(self, size: int) -> Iterator[Sent]:
        """All rows, some at a time."""
        for at in range(0, len(self.rows), size):
            part = slice(at, at + size)
            yield Sent(self.rows[part], None if self.placed is None else self.placed[part])

    def unplaced(self, key: Matrix) -> Matrix:
        """(N, D) the rows without what positions add under a key."""
        return self.rows if self.placed is None else self.rows - self.placed @ key


@dataclass(frozen=True, eq=False)
class Mixture:
    """What the attacker knows of the rows that are sent.

    Attributes:
        table: (V, d) the plain rows.
        prior: (V,) how often each token occurs, all above 0, adding up to 1.
        noise: standard deviation of the noise, as a share of a row's root mean square.
        squares: (V,) the mean squared length of the rows that a token is sent as.
    """

    table: Matrix
    prior: NDArray[np.float64]
    noise: float
    squares: NDArray[np.float64]

    @classmethod
    def of(
        cls, table: Matrix, prior: NDArray[np.float64], noise: float, placed: Matrix | None
    ) -> Mixture:
        """The mixture of rows with what positions (N, d) add to them, if they do."""
        squares = np.square(table).sum(axis=1)
        if placed is not None:
            squares = squares + np.square(placed).sum(axis=1).mean()
            squares = squares + 2 * table @ placed.mean(axis=0)
        return cls(table, prior, noise, squares)

    def variances(self, width: int, *, warmth: float = 0.0) -> NDArray[np.float64]:
        """(V,) the variance of each element of a token's row of this width."""
        squares = self.squares / width
        noise = self.noise**2 + warmth**2
        return np.asarray(noise * squares + _FLOOR * squares.mean())

    def log_joint(
        self, sent: Sent, key: Matrix, variances: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """(N, V) log of prior times likelihood of each token behind each row."""
        rows = sent.unplaced(key)
        squares = np.square(rows).sum(axis=1)[:, None] + np.square(self.table).sum(axis=1)
        distances = squares - 2 * rows @ (self.table @ key).T
        spread = rows.shape[1] / 2 * np.log(2 * np.pi * variances)
        return np.asarray(np.log(self.prior) - spread - distances / (2 * variances))

    def tokens(self, sent: Sent, key: Matrix) -> NDArray[np.int64]:
        """(N,) the likeliest token behind each row."""
        variances = self.variances(sent.rows.shape[1])
        found = [
            self.log_joint(block, key, variances).argmax(axis=1) for block in self._blocks(sent)
        ]
        return np.concatenate(found)

    def likelihood(self, sent: Sent, key: Matrix) -> float:
        """Mean log-likelihood of a row, in nats."""
        variances = self.variances(sent.rows.shape[1])
        total = 0.0
        for block in self._blocks(sent):
            joint = self.log_joint(block, key, variances)
            most = joint.max(axis=1)
            total += float((most + np.log(np.exp(joint - most[:, None]).sum(axis=1))).sum())
        return total / len(sent.rows)

    def fitted(
        self,
        sent: Sent,
        key: Matrix,
        project: Project,
        *,
        known: Matrix | None = None,
        steps: int = 30,
    ) -> Matrix:
        """The key (d, D) after some steps of expectation and maximisation, cooling down.

        It begins as if there were more noise than there is: many tokens share each row then,
        and a key that is half right is pulled on instead of being stuck.

        Args:
            sent: (N, D) the traffic.
            key: (d, D) to begin with.
            project: the nearest key of a family to a matrix (d, D).
            known: (d, D) sum of outer products of known pairs, over their variances.
            steps: how many.
        """
        width = sent.rows.shape[1]
        for step in range(steps):
            variances = self.variances(width, warmth=max(1.0, _WARMTH * _COOLING**step))
            cross = np.zeros((self.table.shape[1], width)) if known is None else known.copy()
            sums = np.zeros((len(self.table), width))
            for block in self._blocks(sent):
                joint = self.log_joint(block, key, variances)
                joint -= joint.max(axis=1, keepdims=True)
                shares = np.exp(joint)
                shares /= shares.sum(axis=1, keepdims=True)
                sums += shares.T @ block.rows
                if block.placed is not None:
                    sureness = shares @ (1 / variances)
                    cross += (block.placed * sureness[:, None]).T @ block.rows
            key = project(cross + (self.table / variances[:, None]).T @ sums)
        return key

    def fits(self, sent: Sent, key: Matrix) -> bool:
        """Whether rows are as far from their likeliest tokens as the noise makes them."""
        tokens = self.tokens(sent, key)
        away = np.square(sent.unplaced(key) - self.table[tokens] @ key).mean(axis=1)
        return bool((away / self.variances(sent.rows.shape[1])[tokens]).mean() < _FITS)

    def _blocks(self, sent: Sent) -> Iterator[Sent]:
        return sent.blocks(max(1, _BLOCK_ELEMENTS // len(self.table)))


def signed_permutation(cross: Matrix) -> Matrix:
    """A signed permutation that fits a matrix (d, d): largest entries first."""
    key = np.zeros_like(cross)
    rows, columns = np.ones(len(cross), bool), np.ones(cross.shape[1], bool)
    for place in np.argsort(-np.abs(cross), axis=None):
        row, column = divmod(int(place), cross.shape[1])
        if rows[row] and columns[column]:
            key[row, column] = 1.0 if cross[row, column] >= 0 else -1.0
            rows[row] = columns[column] = False
    return key
