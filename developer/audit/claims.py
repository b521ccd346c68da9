"""What an attack claims to have found, and how much of it is true."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

UNKNOWN = -1

Rows = NDArray[np.float32]
Matrix = NDArray[np.float64]
_BLOCK = 512
_ASKED = 4096  # tokens of a larger vocabulary that a key is tried on


@dataclass(frozen=True, eq=False)
class Truth:
    """What nobody but the developer knows in whole; attacks are scored against it.

    Attributes:
        token_ids: for each request, (T,) the token behind each row, `UNKNOWN` where the audit
            itself does not know.
        rows: (V, d) the plain embedding table.
        key: (d, D) the residual's key: `keyed == plain @ key`.
        vocabulary: (V,) the keyed place of each token among the logits.
        weights: plain tensors of the hosted model, by name, norm weights folded as the
            compiler folds them.
        other_key: (d, D) the residual's key of the second instance, if there is one.
        answers: what the original answers to a sample of its task.
    """

    token_ids: tuple[NDArray[np.int64], ...]
    rows: Matrix
    key: Matrix
    vocabulary: NDArray[np.int64]
    weights: Mapping[str, Matrix]
    other_key: Matrix | None = None
    answers: Callable[[Any], NDArray[Any]] | None = None

    @property
    def checked(self) -> bool:
        """Whether any token is known."""
        return any((ids != UNKNOWN).any() for ids in self.token_ids)


class Claim(Protocol):
    """What an attack says it found."""

    @property
    def share(self) -> float:
        """Share, 0 to 1, of what it was after that it claims to have found."""

    def score(self, truth: Truth) -> float:
        """Share, 0 to 1, that it found and that is right."""


@dataclass(frozen=True, eq=False)
class Tokens:
    """The tokens behind the rows of the traffic.

    Attributes:
        token_ids: for each request, (T,) the token behind each row, `UNKNOWN` where the
            attack found none or more than one.
        fresh: for each request, (T,) whether the row counts: the attacker did not know it
            before. Empty if all do.
    """

    token_ids: tuple[NDArray[np.int64], ...]
    fresh: tuple[NDArray[np.bool_], ...] = ()

    @property
    def share(self) -> float:
        """Share of rows with a token."""
        found = np.concatenate(self.token_ids)[self._counted()]
        return float((found != UNKNOWN).mean()) if len(found) else 0.0

    def score(self, truth: Truth) -> float:
        """Share of rows whose token is the true one, of those whose truth is known."""
        found, right = np.concatenate(self.token_ids), np.concatenate(truth.token_ids)
        known = (right != UNKNOWN) & self._counted()
        return float((found == right)[known].mean()) if known.any() else self.share

    def _counted(self) -> NDArray[np.bool_]:
        if self.fresh:
            return np.concatenate(self.fresh)
        return np.ones(sum(map(len, self.token_ids)), bool)


@dataclass(frozen=True, eq=False)
class ResidualKey:
    """The key of the residual.

    Attributes:
        key: (d, D) float64: `keyed == plain @ key`; a column of zeros where the attack does
            not know.
        figures: further numbers, by what they count.
    """

    key: Matrix
    figures: Mapping[str, float] = field(default_factory=dict)

    @property
    def share(self) -> float:
        """Share of columns that are not left open."""
        return float(np.any(self.key != 0, axis=0).mean())

    def score(self, truth: Truth) -> float:
        """Share of the vocabulary that the key opens.

        A token is open if, of all rows of the table under the claimed key, its own is the
        nearest to its row under the true one.
        """
        return _opened(truth.rows, truth.rows @ truth.key, truth.rows @ self.key)


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """The secret order of the vocabulary.

    Attributes:
        places: (V,) the keyed place of each token, `UNKNOWN` where the attack does not say.
    """

    places: NDArray[np.int64]

    @property
    def share(self) -> float:
        """Share of tokens with a place."""
        return float((self.places != UNKNOWN).mean())

    def score(self, truth: Truth) -> float:
        """Share of tokens whose place is the true one."""
        return float((self.places == truth.vocabulary).mean())


@dataclass(frozen=True, eq=False)
class Weights:
    """Plain weights of the private model, and with them its function.

    Attributes:
        tensors: (n, m) each, by name.
        base: the public ones that they are compared with, by the same names.
    """

    tensors: Mapping[str, Matrix]
    base: Mapping[str, Matrix] = field(default_factory=dict)

    @property
    def share(self) -> float:
        """1 if there are any: how many there should be is not the attacker's to say."""
        return float(bool(self.tensors))

    def score(self, truth: Truth) -> float:
        """Share of weights, by count, in tensors that are right within 1 %."""
        total = sum(plain.size for plain in truth.weights.values())
        right = sum(
            plain.size
            for name, plain in truth.weights.items()
            if name in self.tensors and _near(self.tensors[name], plain)
        )
        return right / total if total else 0.0

    def figures(self, truth: Truth) -> Mapping[str, float]:
        """How near the claim is, and its difference to the base to the true difference.

        Relative errors, and the cosine between both differences; none without a base, or
        where the private model is the base.
        """
        apart, size, inner, mine, its = 0.0, 0.0, 0.0, 0.0, 0.0
        for name, base in self.base.items():
            plain, found = truth.weights.get(name), self.tensors.get(name)
            if plain is None or found is None or plain.shape != found.shape:
                continue
            apart += float(np.square(found - plain).sum())
            size += float(np.square(plain).sum())
            inner += float(((found - base) * (plain - base)).sum())
            mine += float(np.square(found - base).sum())
            its += float(np.square(plain - base).sum())
        if not mine or not its:
            return {}
        return {
            "relative error": (apart / size) ** 0.5,
            "relative error of the difference to the base": (apart / its) ** 0.5,
            "cosine of the difference to the base": inner / (mine * its) ** 0.5,
        }


@dataclass(frozen=True, eq=False)
class Relation:
    """The key that leads from one instance of a model to another one.

    Attributes:
        relation: (D, D) float64: `rows of the other == rows of this one @ relation`.
    """

    relation: Matrix

    @property
    def share(self) -> float:
        """Share of columns that are not left open."""
        return float(np.any(self.relation != 0, axis=0).mean())

    def score(self, truth: Truth) -> float:
        """Share of the vocabulary whose rows of one instance open those of the other."""
        if truth.other_key is None:
            return 0.0
        mine = truth.rows @ truth.key
        return _opened(truth.rows, truth.rows @ truth.other_key, mine @ self.relation)


@dataclass(frozen=True, eq=False)
class Function:
    """What the model answers, in the plain.

    Attributes:
        sample: inputs of the model's task.
        found: (N, O) the answers to them; no rows where the attack has none.
    """

    sample: Any
    found: NDArray[Any]

    @property
    def share(self) -> float:
        """1 if there are answers."""
        return float(bool(len(self.found)))

    def score(self, truth: Truth) -> float:
        """Share of inputs whose answers (as wholes) are right within 1 %."""
        if truth.answers is None or not len(self.found):
            return 0.0
        plain = truth.answers(self.sample).astype(np.float64)
        off = np.linalg.norm(self.found - plain, axis=-1)
        return float((off <= 0.01 * np.linalg.norm(plain, axis=-1)).mean())


@dataclass(frozen=True, eq=False)
class Seen:
    """What shows as it is, without any attack: lengths, counts, who says when.

    Attributes:
        figures: numbers by what they count, for the report.
        share: share of what was looked for that shows.
    """

    figures: Mapping[str, float]
    share: float = 1.0

    def score(self, truth: Truth) -> float:
        """Nothing is guessed, so all of it is right."""
        return self.share


@dataclass(frozen=True, eq=False)
class Links:
    """Which answer of the model means the token of which row.

    Attributes:
        numbers: (N,) the number of each row of the traffic among the different ones.
        places: (M,) for each different row, the index of its token among the logits,
            `UNKNOWN` where the attack does not say.
    """

    numbers: NDArray[np.int64]
    places: NDArray[np.int64]

    @property
    def share(self) -> float:
        """Share of different rows with an answer."""
        return float((self.places != UNKNOWN).mean())

    def score(self, truth: Truth) -> float:
        """Share of different rows whose answer is the true one, of those with a known token."""
        tokens = np.full(len(self.places), UNKNOWN, np.int64)
        tokens[self.numbers] = np.concatenate(truth.token_ids)
        known = tokens != UNKNOWN
        right = self.places[known] == truth.vocabulary[tokens[known]]
        return float(right.mean()) if known.any() else self.share


def _opened(plain: Matrix, right: Matrix, claimed: Matrix) -> float:
    """Share of rows whose nearest claimed row is their own, equal plain rows being one."""
    same = np.unique(plain, axis=0, return_inverse=True)[1].reshape(-1)
    squares = np.einsum("vd,vd->v", claimed, claimed)
    asked = np.linspace(0, len(right) - 1, min(len(right), _ASKED)).astype(np.int64)
    hits = 0
    for start in range(0, len(asked), _BLOCK):
        block = asked[start : start + _BLOCK]
        nearest = np.argmin(squares - 2 * right[block] @ claimed.T, axis=1)
        hits += int((same[nearest] == same[block]).sum())
    return hits / len(asked)


def _near(found: Matrix, plain: Matrix) -> bool:
    return found.shape == plain.shape and bool(
        np.linalg.norm(found - plain) <= 0.01 * np.linalg.norm(plain)
    )
