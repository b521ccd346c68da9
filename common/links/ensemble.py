"""One prediction from the links of several sources, for any subset of them.

Each member's logits are multiplied by a weight that is not negative, and the weights of those
that are there are made to sum to 1 (thesis 5.2.1): one source alone is its own link. Sequences
have no logits that could be averaged place by place: of them the heaviest member there decides.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np

from triparty.common.errors import SettingsError
from triparty.common.links.features import Floats, activate, sigmoid
from triparty.common.links.link import Link
from triparty.common.links.specs import Outputs, OutputSpec, Seq, Vec


@dataclass(frozen=True, eq=False)
class Member:
    """A link of an ensemble.

    Attributes:
        source: name of the model whose output it takes; several members may take the same,
            as a local and a global link do.
        link: to the ensemble's target.
        weight: not negative.
    """

    source: str
    link: Link
    weight: float = 1.0


@dataclass(frozen=True, eq=False)
class Prediction:
    """What links say of a model that was not run.

    Attributes:
        outputs: (n, ...) as the target's spec says.
        confidence: (n,) float32, 0 to 1: the share of the likeliest class, of the labels as
            they are told, or of the tokens; for numbers and boxes the agreement that the
            links had on samples held out.
    """

    outputs: Outputs
    confidence: Floats


@dataclass(frozen=True, eq=False)
class Ensemble:
    """Links from one or more sources to one target.

    Attributes:
        name: of the target model.
        target: its output.
        members: the links.
        expected: agreement with the target, 0 to 1, on samples held out; confidence of what
            has no shares.
    """

    name: str
    target: OutputSpec
    members: tuple[Member, ...]
    expected: float = 0.0

    def __post_init__(self) -> None:
        """Refuses members that do not fit.

        Raises:
            SettingsError: none, one of another target, two specs of one source, or a weight
                that cannot be.
        """
        if not self.members:
            raise SettingsError(f"no links to '{self.name}': an ensemble has at least one")
        specs: dict[str, OutputSpec] = {}
        for member in self.members:
            if member.link.design.target != self.target:
                raise SettingsError(
                    f"the link from '{member.source}' is to another output than '{self.name}'"
                )
            source = member.link.design.source
            if specs.setdefault(member.source, source) != source:
                raise SettingsError(f"two links disagree on what '{member.source}' gives")
            if not 0 <= member.weight < float("inf"):
                raise SettingsError(
                    f"the weight of '{member.source}' is {member.weight}: expected 0 or more"
                )
        if not 0 <= self.expected <= 1:
            raise SettingsError(f"expected agreement {self.expected}: must be 0 to 1")

    @property
    def sources(self) -> dict[str, OutputSpec]:
        """The outputs that the links take, by model."""
        return {member.source: member.link.design.source for member in self.members}

    @property
    def parameters(self) -> int:
        """Numbers that training changes, of all links."""
        return sum(member.link.parameters for member in self.members)

    def among(self, names: Collection[str]) -> tuple[Member, ...]:
        """The members whose sources are there, with weights that sum to 1.

        Members that training gave no weight count the same if nobody else is there.
        """
        present = [member for member in self.members if member.source in names]
        total = sum(member.weight for member in present)
        return tuple(
            Member(one.source, one.link, one.weight / total if total else 1 / len(present))
            for one in present
        )

    def logits(self, outputs: Mapping[str, Outputs]) -> Floats:
        """(n, width) float32, of an ensemble to a vector.

        Args:
            outputs: (n, ...) of the sources that were run; others are ignored.

        Raises:
            SettingsError: none of the sources was run.
        """
        present = self._present(outputs)
        logits = present[0].link.logits(outputs[present[0].source])
        if len(present) == 1:
            return logits
        logits = logits * np.float32(present[0].weight)
        for member in present[1:]:
            one = member.link.logits(outputs[member.source])
            logits += one * np.float32(member.weight)
        return logits

    def predict(self, outputs: Mapping[str, Outputs]) -> Prediction:
        """What the target would say.

        Args:
            outputs: (n, ...) of the sources that were run, as `check_outputs` returns them;
                those of other models are ignored.

        Raises:
            SettingsError: none of the sources was run.
        """
        if isinstance(self.target, Seq):
            best = max(self._present(outputs), key=lambda member: member.weight)
            decoded = best.link.decode(outputs[best.source])
            return Prediction(decoded.tokens, decoded.confidence)
        logits = self.logits(outputs)
        made = activate(self.target, logits)
        return Prediction(made, self._confidence(self.target, logits, made))

    def _confidence(self, target: Vec, logits: Floats, made: Floats) -> Floats:
        match target.task:
            case "single-label":
                likeliest: Floats = made.max(1)
                return likeliest
            case "multi-label":
                mean: Floats = sigmoid(np.abs(logits)).mean(1)
                return mean
            case _:
                return np.full(len(made), self.expected, np.float32)

    def _present(self, outputs: Mapping[str, Outputs]) -> tuple[Member, ...]:
        present = self.among(outputs)
        if not present:
            raise SettingsError(
                f"'{self.name}' is predicted from {', '.join(self.sources)}, and none of them "
                "was run"
            )
        return present
