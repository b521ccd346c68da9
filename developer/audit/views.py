"""A checkpoint as an attacker reads it: its tensors, and where the residual is in them.

Which axis of which tensor is the residual is no secret: it follows from the architecture, which
`config.json` names. So the same plan that re-keys a model tells an attacker where to look.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from triparty.common.errors import UnsupportedModelError
from triparty.developer.protect import Choices, Interface
from triparty.developer.protect.checkpoints import Checkpoint
from triparty.developer.protect.families import Family, family_of
from triparty.developer.protect.options import Options
from triparty.developer.protect.plans import VOCABULARY, Plan
from triparty.developer.protect.rekeying import to_floats
from triparty.developer.protect.rules import Fate, LookupRule, Role, Rule
from triparty.developer.stock import load_model

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Matrix = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Weighing:
    """A matrix that reads the residual or writes it.

    Attributes:
        name: of the tensor.
        matrix: (D, n) float64, the residual's axis first.
        reads: whether it reads the residual; it writes it otherwise.
        other: the space of the other axis, as the plan of the family names it.
    """

    name: str
    matrix: Matrix
    reads: bool
    other: str


@dataclass(frozen=True, eq=False)
class ModelView:
    """A checkpoint, hosted or public.

    Attributes:
        folder: where it lies.
        checkpoint: its files.
        architecture: class of the model.
        plan: which axis of which tensor belongs to which space.
    """

    folder: Path
    checkpoint: Checkpoint
    architecture: str
    plan: Plan

    @classmethod
    def open(cls, folder: Path) -> ModelView:
        """Opens a folder as the cloud or the public has it.

        Raises:
            CheckpointError: a file is missing or broken.
            UnsupportedModelError: a family without a plan.
        """
        checkpoint = Checkpoint.open(folder)
        family, architecture = family_of(checkpoint.config)
        options = Options(checkpoint.config, family.known)
        return cls(folder, checkpoint, architecture, _plan(family, options, architecture))

    @property
    def width(self) -> int:
        """D, the width of the residual."""
        return self.plan.width

    @property
    def names(self) -> list[str]:
        """All tensors that it has, by their names in the plan."""
        return sorted(self._places)

    @cached_property
    def residual(self) -> str:
        """The space of the residual, by its name in the plan: what the device's rows are in."""
        return self.tables["rows"].axes[1].space

    @cached_property
    def tables(self) -> Mapping[str, Rule]:
        """The tables whose rows make up the residual, by the names that devices give them.

        Raises:
            UnsupportedModelError: the model takes no tokens.
        """
        tables = self.plan.device_tables()
        if "rows" in tables:
            return tables
        for rule in self.plan.tensors.values():
            if isinstance(rule, LookupRule) and rule.axes[0].space == VOCABULARY:
                return {"rows": rule}
        raise UnsupportedModelError(
            f"{self.folder} takes no tokens, so it has no table of them"
        )

    def tensor(self, name: str) -> Matrix:
        """A tensor's values in float64, in the shape in which it is stored.

        Raises:
            KeyError: there is no such tensor.
        """
        shard, stored = self._places[name]
        return to_floats(shard.bits(stored), shard.entries[stored].dtype).astype(np.float64)

    def dtype(self, name: str) -> str:
        """The format in which a tensor is stored, as safetensors names it.

        Raises:
            KeyError: there is no such tensor.
        """
        shard, stored = self._places[name]
        return str(shard.entries[stored].dtype)

    def embedding(self) -> Matrix | None:
        """(V, D) the hosted rows of all token ids; None where the device looks them up."""
        name = self.tables["rows"].pattern
        rows = self.tensor(name) if name in self._places else np.zeros(0)
        return rows if rows.any() else None

    def head(self) -> Matrix | None:
        """(D, O) the matrix that makes logits of the residual; None where there is none."""
        last = [w for w in self.weighings() if w.reads and w.other == self.plan.output_space]
        return last[-1].matrix if last else None

    def weighings(self) -> Iterator[Weighing]:
        """Every matrix with the residual on one of its two axes, in the order of the table."""
        for name, rule in self.plan.tensors.items():
            if name not in self._places or len(rule.axes) != 2 or rule.fate is Fate.DROPPED:
                continue
            spaces = [axis.space for axis in rule.axes]
            if self.residual not in spaces or rule.axes[0].space == rule.axes[1].space:
                continue
            axis = spaces.index(self.residual)
            values = self.tensor(name)
            if values.ndim != 2 or not values.any():
                continue
            yield Weighing(
                name,
                values if axis == 0 else values.T,
                reads=rule.axes[axis].role is Role.READS,
                other=spaces[1 - axis],
            )

    def load(self, auto_class: str = "AutoModelForCausalLM") -> PreTrainedModel:
        """The model in its stock class, as the cloud runs it.

        Raises:
            CheckpointError: it does not load.
        """
        return load_model(self.folder, auto_class)

    @cached_property
    def _places(self) -> dict[str, tuple[Any, str]]:
        return {
            self.plan.canonical(name): (shard, name)
            for shard in self.checkpoint.shards
            for name in shard.entries
        }


def _plan(family: Family, options: Options, architecture: str) -> Plan:
    """The plan of a family; of what takes token ids alone, that one."""
    try:
        return family.plan(options, Choices(), architecture)
    except UnsupportedModelError:
        return family.plan(options, Choices(interface=Interface.TOKENS), architecture)
