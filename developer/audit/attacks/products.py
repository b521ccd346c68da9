"""Vocabulary matching on product matrices: what keys cancel out of.

A token's row times what a layer's neurons read is the same whatever rotates the residual: the
key meets its inverse. What is left is a table of tokens by neurons, both in a secret order.
Sorted, a token's row in it tells which token it is; then neurons are told apart by tokens and
tokens by neurons, in turn. Layers vote.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from triparty.developer.audit.attack import Target
from triparty.developer.audit.claims import Matrix, Vocabulary
from triparty.developer.audit.controls import unrelated_model
from triparty.developer.audit.knowledge import Knowledge, given
from triparty.developer.audit.levels import Level
from triparty.developer.audit.pairing import assigned, nearest, placed, unit
from triparty.developer.audit.reading import Reading, folded_head, headless, incomparable

LAYERS = 4
"""How many layers vote."""

MAX_TURNS = 6
_QUANTILES = 64
_NEURONS = 512
_ANCHORS = 2048


class Products:
    """Matches tokens by products of the hosted rows or head with the layers' matrices."""

    name = "products"
    level = Level.K3
    target = Target.TOKENS
    cites = "AloePri's vocabulary matching attack, arXiv:2603.01499"
    means = "Who has the public base reads the order of the vocabulary without any key."
    remedy = "Keep the embedding and the head on the device."

    def lacks(self, knowledge: Knowledge) -> str | None:
        """It needs hosted rows of tokens, and layers to multiply them with."""
        lacking = headless(knowledge.base, knowledge.hosted)
        return lacking or incomparable(given(knowledge.base), given(knowledge.hosted))

    def mount(self, knowledge: Knowledge) -> Vocabulary:
        """The keyed place of each token, by a vote of the layers."""
        base, hosted = given(knowledge.base), given(knowledge.hosted)
        heads = folded_head(base), folded_head(hosted)
        ballots = [
            _matched(heads[0].T @ mine, heads[1].T @ its)
            for mine, its in _readers(Reading.of(base), Reading.of(hosted))
        ]
        return Vocabulary(_voted(np.stack(ballots)))

    def control(self, knowledge: Knowledge) -> Knowledge:
        """Another model of the same shape for a base."""
        return replace(knowledge, base=unrelated_model(given(knowledge.base)))


def _readers(base: Reading, hosted: Reading) -> Iterator[tuple[Matrix, Matrix]]:
    """What the neurons of some layers read, where keys do not scale it."""
    names = [n for n, group in base.neurons.items() if n in hosted.neurons]
    layers = [n for n in names if len(base.neurons[n].sides) > 1] or names
    for name in layers[:: max(1, len(layers) // LAYERS)][:LAYERS]:
        yield base.neurons[name].sides[0].matrix, hosted.neurons[name].sides[0].matrix


def _matched(base: Matrix, hosted: Matrix) -> NDArray[np.int64]:
    """(V,) the place of each row of one table in the other, columns in any order."""
    left, right = _sorted_rows(base), _sorted_rows(hosted)
    places = placed(left, right)
    anchors = _surest(left, right)
    for _ in range(MAX_TURNS):
        mine, its = unit(base[anchors]), unit(hosted[places[anchors]])
        neurons = assigned(mine.T @ its)
        kept = np.sort(np.argsort(-np.einsum("an,an->n", mine, its[:, neurons]))[:_NEURONS])
        left, right = base[:, kept], hosted[:, neurons[kept]]
        found = placed(left, right)
        if np.array_equal(found, places):
            break
        places, anchors = found, _surest(left, right)
    return places


def _surest(left: Matrix, right: Matrix) -> NDArray[np.int64]:
    """Rows whose nearest one is nearer than all others by the most."""
    count = len(left)
    if count <= 2 * _ANCHORS:
        return np.arange(count)
    lead = nearest(left, right)[1]
    return np.sort(np.argsort(-lead)[:_ANCHORS])


def _sorted_rows(products: Matrix) -> Matrix:
    """(V, f) what no order of the columns changes."""
    ends = np.linspace(0, products.shape[1] - 1, min(_QUANTILES, products.shape[1]))
    made: Matrix = np.sort(products, axis=1)[:, ends.astype(np.int64)]
    spread: Matrix = (made - made.mean(axis=0)) / np.sqrt(made.var(axis=0).mean())
    return spread


def _voted(ballots: NDArray[np.int64]) -> NDArray[np.int64]:
    """(V,) for each token the place that most layers name, the first of those that tie."""
    votes = (ballots[:, None, :] == ballots[None, :, :]).sum(axis=1)
    chosen: NDArray[np.int64] = ballots[votes.argmax(axis=0), np.arange(ballots.shape[1])]
    return chosen
