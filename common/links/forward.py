"""Links in NumPy, as fast for one input as for many; a test compares them with torch.

Law: `forward` of a network's weights is what `networks.LinkNetwork` computes with them.

Shapes: `n` inputs, `w` hidden width, `t` tokens of a source, `m` things to look at.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from triparty.common.errors import SettingsError
from triparty.common.links.design import SLOTS, LinkDesign
from triparty.common.links.features import (
    MOST_DEVIATIONS,
    Floats,
    features,
    log_shares,
    sigmoid,
)
from triparty.common.links.specs import PAD, Outputs, Seq, Vec

Weights = Mapping[str, NDArray[np.float32]]


def vec_logits(design: LinkDesign, weights: Weights, outputs: Outputs) -> Floats:
    """Logits of a link to a vector.

    Args:
        design: of the link.
        weights: as `design.shapes` says.
        outputs: (n, ...) of the source.

    Returns:
        (n, width of the target) float32; of regression and boxes, in the target's units.
    """
    if design.form == "identity":
        made: Floats = log_shares(outputs) @ weights["map.weight"].T + weights["map.bias"]
        return made
    hidden = hidden_activation(design, weights, outputs)
    logits: Floats = hidden @ weights["output.weight"].T + weights["output.bias"]
    if "target.scale" in weights:
        logits = logits * weights["target.scale"] + weights["target.mean"]
    return logits


def hidden_activation(design: LinkDesign, weights: Weights, outputs: Outputs) -> Floats:
    """(n, w), of an identity link its features: what a prediction of losses is made from."""
    if design.form == "identity":
        return log_shares(outputs)
    if isinstance(design.source, Vec):
        return _first_layer(design.source, weights, outputs)
    last, _ = _read(weights, design.source, outputs)
    rectified: Floats = np.maximum(
        last @ weights["hidden.weight"].T + weights["hidden.bias"], 0
    )
    return rectified


def _first_layer(source: Vec, weights: Weights, outputs: Outputs) -> Floats:
    scaled = (features(source, outputs) - weights["source.mean"]) / weights["source.scale"]
    np.clip(scaled, -MOST_DEVIATIONS, MOST_DEVIATIONS, out=scaled)
    rectified: Floats = np.maximum(
        scaled @ weights["hidden.weight"].T + weights["hidden.bias"], 0
    )
    return rectified


@dataclass(frozen=True, eq=False)
class Decoded:
    """Sequences that a link predicted.

    Attributes:
        tokens: (n, length) int64, `PAD` behind the last.
        confidence: (n,) float32, the geometric mean of the shares of the chosen tokens.
    """

    tokens: NDArray[np.int64]
    confidence: Floats


def decode(design: LinkDesign, weights: Weights, outputs: Outputs) -> Decoded:
    """The likeliest token at each place until the end; of a link to a sequence.

    Args:
        design: of the link.
        weights: as `design.shapes` says.
        outputs: (n, ...) of the source.

    Raises:
        SettingsError: a link to a vector.
    """
    target = design.target
    if not isinstance(target, Seq):
        raise SettingsError("a link to a vector has nothing to decode: it predicts")
    memory, there, state = remember(design, weights, outputs)
    count = len(memory)
    tokens = np.full((count, target.length), PAD, np.int64)
    word = np.full(count, target.end, np.int64)
    logs, steps = np.zeros(count, np.float32), np.zeros(count, np.float32)
    is_open = np.ones(count, np.bool_)
    context = np.zeros_like(state[0])
    for place in range(target.length):
        logits, context, state = step(weights, memory, there, word, context, state)
        word = logits.argmax(1).astype(np.int64)
        logs += np.where(is_open, _log_share(logits, word), 0.0)
        steps += is_open
        is_open &= word != target.end
        tokens[is_open, place] = word[is_open]
        if not is_open.any():
            break
    return Decoded(tokens, np.exp(logs / steps).astype(np.float32))


State = tuple[Floats, Floats]


def remember(
    design: LinkDesign, weights: Weights, outputs: Outputs
) -> tuple[Floats, NDArray[np.bool_], State]:
    """What a decoder looks at, which of it is there, and the state it begins in.

    Returns:
        (n, m, w) float32, (n, m) bool, and twice (n, w) float32.
    """
    width = design.width
    if isinstance(design.source, Vec):
        memory = _first_layer(design.source, weights, outputs).reshape(-1, SLOTS, width)
        there = np.ones(memory.shape[:2], np.bool_)
        first: Floats = memory.mean(axis=1)
        return memory, there, (first, np.zeros_like(first))
    last, memory = _read(weights, design.source, outputs)
    return memory, _read_places(design.source, outputs), (last, np.zeros_like(last))


def step(
    weights: Weights,
    memory: Floats,
    there: NDArray[np.bool_],
    word: NDArray[np.int64],
    context: Floats,
    state: State,
) -> tuple[Floats, Floats, State]:
    """One token of a decoder: logits (n, vocabulary + 1), what it looked at, its state."""
    embedded = np.concatenate([weights["word.weight"][word], context], axis=1)
    state = lstm_cell(weights, "decoder", embedded, state)
    hidden = state[0]
    likeness = np.einsum("nmw,nw->nm", memory, hidden)
    likeness = np.where(there, likeness, -np.inf)
    share = np.exp(likeness - likeness.max(1, keepdims=True))
    share /= share.sum(1, keepdims=True)
    context = np.einsum("nm,nmw->nw", share, memory)
    both = np.concatenate([hidden, context], axis=1)
    logits: Floats = both @ weights["output.weight"].T + weights["output.bias"]
    return logits, context, state


def _read(weights: Weights, source: Seq, outputs: Outputs) -> tuple[Floats, Floats]:
    """The encoder's last state (n, w), and all of them (n, t, w); an end stands before all."""
    tokens = np.concatenate([np.full((len(outputs), 1), source.end), outputs], axis=1)
    places = _read_places(source, outputs)
    width = weights["encoder.weight_hh"].shape[1]
    hidden = np.zeros((len(outputs), width), np.float32)
    state = (hidden, hidden)
    seen = np.zeros((len(outputs), tokens.shape[1], width), np.float32)
    for place in range(int(places.sum(1).max())):
        is_there = places[:, place, None]
        word = np.where(places[:, place], tokens[:, place], source.end)
        new = lstm_cell(weights, "encoder", weights["token.weight"][word], state)
        state = (
            np.where(is_there, new[0], state[0]),
            np.where(is_there, new[1], state[1]),
        )
        seen[:, place] = np.where(is_there, state[0], 0.0)
    return state[0], seen


def _read_places(source: Seq, outputs: Outputs) -> NDArray[np.bool_]:
    """(n, t + 1) where a token stands; the first place, which is the beginning, always."""
    begin = np.ones((len(outputs), 1), np.bool_)
    return np.concatenate([begin, outputs != PAD], axis=1)


def lstm_cell(weights: Weights, name: str, inputs: Any, state: State) -> State:
    """One step of torch's LSTM cell: gates in the order input, forget, cell, output."""
    hidden, cell = state
    gates = (
        inputs @ weights[f"{name}.weight_ih"].T
        + weights[f"{name}.bias_ih"]
        + hidden @ weights[f"{name}.weight_hh"].T
        + weights[f"{name}.bias_hh"]
    )
    width = hidden.shape[1]
    entered, kept = sigmoid(gates[:, :width]), sigmoid(gates[:, width : 2 * width])
    candidate = np.tanh(gates[:, 2 * width : 3 * width])
    shown = sigmoid(gates[:, 3 * width :])
    cell = kept * cell + entered * candidate
    return shown * np.tanh(cell), cell


def _log_share(logits: Floats, word: NDArray[np.int64]) -> Floats:
    highest = logits.max(1)
    total = np.log(np.exp(logits - highest[:, None]).sum(1)) + highest
    chosen: Floats = logits[np.arange(len(word)), word] - total
    return chosen
