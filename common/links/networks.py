"""Links as torch networks, for training; `forward` runs their weights in NumPy.

Vec-to-vec: one hidden ReLU layer. Seq-to-vec: embedding, LSTM, one hidden ReLU layer.
Vec-to-seq: a layer makes four things to look at, an LSTM with attention writes. Seq-to-seq:
an LSTM reads, the same decoder looks at what it read.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from triparty.common.errors import SettingsError
from triparty.common.links.design import SLOTS, LinkDesign
from triparty.common.links.features import MOST_DEVIATIONS, features, log_shares
from triparty.common.links.specs import PAD, Outputs, Seq, Vec


class LinkNetwork(nn.Module):
    """The network of a design; weights have the names and shapes that the design says.

    Args:
        design: of the link.
        dropout: share of the hidden layer that is left out in training.
    """

    def __init__(self, design: LinkDesign, *, dropout: float = 0.0) -> None:
        """Draws weights from torch's generator; an identity link begins as no map at all."""
        super().__init__()
        self.design, self.dropout = design, dropout
        self._names: dict[str, str] = {}
        trained = set(design.trained)
        for name, shape in design.shapes.items():
            value = _first_weight(name, shape)
            inner = name.replace(".", "__")
            self._names[name] = inner
            if name in trained:
                self.register_parameter(inner, nn.Parameter(value))
            else:
                self.register_buffer(inner, value)

    def __getitem__(self, name: str) -> Tensor:
        """A weight by the name that the design gives it."""
        weight: Tensor = getattr(self, self._names[name])
        return weight

    def weights(self) -> dict[str, NDArray[np.float32]]:
        """Copies of all weights by the design's names."""
        return {name: self[name].detach().cpu().numpy().copy() for name in self._names}

    def load(self, weights: Mapping[str, NDArray[Any]]) -> None:
        """Takes weights as `weights` gives them; the design's shapes are expected."""
        with torch.no_grad():
            for name in self._names:
                self[name].copy_(torch.from_numpy(np.array(weights[name], np.float32)))

    def hidden(self, inputs: Tensor) -> Tensor:
        """(n, w) before the last layer; of an identity link its features."""
        if self.design.form == "identity":
            return inputs
        if isinstance(self.design.source, Vec):
            return self._first_layer(inputs)
        last, _, _ = self._read(inputs)
        return functional.relu(
            functional.linear(last, self["hidden.weight"], self["hidden.bias"])
        )

    def logits(self, hidden: Tensor) -> Tensor:
        """(n, width) of what `hidden` gives, in the target's units."""
        if self.design.form == "identity":
            return functional.linear(hidden, self["map.weight"], self["map.bias"])
        kept = functional.dropout(hidden, self.dropout, self.training)
        made = functional.linear(kept, self["output.weight"], self["output.bias"])
        if "target.scale" in self._names:
            made = made * self["target.scale"] + self["target.mean"]
        return made

    def forward(self, inputs: Tensor, targets: Tensor | None = None) -> Tensor:
        """Logits.

        Args:
            inputs: as `network_inputs` makes them.
            targets: (n, length) tokens of a target sequence, which the decoder is told one
                place late; of no use to a vector.

        Returns:
            (n, width), or (n, length + 1, vocabulary + 1) of a sequence.
        """
        if isinstance(self.design.target, Vec):
            return self.logits(self.hidden(inputs))
        if targets is None:
            raise SettingsError("a link to a sequence is trained with the words it follows")
        return self._written(inputs, targets, self.design.target)

    def _first_layer(self, inputs: Tensor) -> Tensor:
        scaled = ((inputs - self["source.mean"]) / self["source.scale"]).clamp(
            -MOST_DEVIATIONS, MOST_DEVIATIONS
        )
        return functional.relu(
            functional.linear(scaled, self["hidden.weight"], self["hidden.bias"])
        )

    def _read(self, inputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The encoder's last state, all states, and where a token stands."""
        end = self.design.source.logits - 1
        begin = torch.full((len(inputs), 1), end)
        tokens = torch.cat([begin, inputs], dim=1)
        there = tokens != PAD
        words = torch.where(there, tokens, end)
        embedded = functional.embedding(words, self["token.weight"])
        hidden = embedded.new_zeros(len(inputs), self.design.width)
        state, seen = (hidden, hidden), []
        for place in range(int(there.sum(1).max())):
            new = self._cell("encoder", embedded[:, place], state)
            is_there = there[:, place, None]
            state = (
                torch.where(is_there, new[0], state[0]),
                torch.where(is_there, new[1], state[1]),
            )
            seen.append(torch.where(is_there, state[0], 0.0))
        memory = torch.stack(seen, dim=1)
        return state[0], memory, there[:, : memory.shape[1]]

    def _written(self, inputs: Tensor, targets: Tensor, target: Seq) -> Tensor:
        if isinstance(self.design.source, Vec):
            memory = self._first_layer(inputs).view(-1, SLOTS, self.design.width)
            there = torch.ones(memory.shape[:2], dtype=torch.bool)
            hidden = memory.mean(dim=1)
        else:
            hidden, memory, there = self._read(inputs)
        begin = torch.full((len(targets), 1), target.end)
        told = torch.cat([begin, targets], dim=1)
        words = functional.embedding(torch.where(told == PAD, target.end, told),
                                     self["word.weight"])  # fmt: skip
        state, context = (hidden, torch.zeros_like(hidden)), torch.zeros_like(hidden)
        made = []
        for place in range(told.shape[1]):
            state = self._cell("decoder", torch.cat([words[:, place], context], 1), state)
            likeness = torch.einsum("nmw,nw->nm", memory, state[0])
            share = likeness.masked_fill(~there, -torch.inf).softmax(dim=1)
            context = torch.einsum("nm,nmw->nw", share, memory)
            both = functional.dropout(
                torch.cat([state[0], context], dim=1), self.dropout, self.training
            )
            made.append(functional.linear(both, self["output.weight"], self["output.bias"]))
        return torch.stack(made, dim=1)

    def _cell(
        self, name: str, inputs: Tensor, state: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, Tensor]:
        found: tuple[Tensor, Tensor] = torch.lstm_cell(
            inputs,
            state,
            self[f"{name}.weight_ih"],
            self[f"{name}.weight_hh"],
            self[f"{name}.bias_ih"],
            self[f"{name}.bias_hh"],
        )
        return found


def network_inputs(design: LinkDesign, outputs: Outputs) -> Tensor:
    """A source's outputs as its network takes them: features of a vector, or tokens."""
    if isinstance(design.source, Seq):
        return torch.from_numpy(outputs)
    if design.form == "identity":
        return torch.from_numpy(log_shares(outputs))
    return torch.from_numpy(features(design.source, outputs))


def _first_weight(name: str, shape: tuple[int, ...]) -> Tensor:
    """Identity, no scaling, no bias; else uniform as torch's own layers begin."""
    if name == "map.weight":
        return torch.eye(shape[0])
    if name.endswith(".scale"):
        return torch.ones(shape)
    if len(shape) == 1:
        return torch.zeros(shape)
    bound = shape[1] ** -0.5
    return torch.empty(shape).uniform_(-bound, bound)
