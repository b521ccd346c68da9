"""What a compilation will do, decided before a byte is written.

Everything that can be refused is refused here, from `config.json` and the headers of the
tensor files.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from triparty.common.deviceinfo import DeviceInfo
from triparty.common.errors import CheckpointError, SettingsError, UnsupportedModelError
from triparty.common.tensorfile import TensorEntry
from triparty.developer.protect.bundle import DTYPES, device_info
from triparty.developer.protect.checkpoints import Checkpoint, fetch, tokenizer_files
from triparty.developer.protect.families import Family, family_of
from triparty.developer.protect.options import Options
from triparty.developer.protect.plans import Fate, Plan

SCHEMES = ("permutation",)
INTERFACES = ("embeddings",)
_COMPARED_ROWS = 4096


@dataclass(frozen=True)
class Choices:
    """What the developer chose.

    Attributes:
        scheme: how spaces are keyed.
        interface: what travels between device and cloud.
        epoch: generation of the key, from 1.
    """

    scheme: str = "permutation"
    interface: str = "embeddings"
    epoch: int = 1

    def __post_init__(self) -> None:
        """Refuses what does not exist."""
        for what, value, choices in (
            ("scheme", self.scheme, SCHEMES),
            ("interface", self.interface, INTERFACES),
        ):
            if value not in choices:
                raise SettingsError(
                    f"there is no {what} {value!r}; there is: {', '.join(choices)}"
                )
        if self.epoch < 1:
            raise SettingsError(f"epochs count from 1, got {self.epoch}")


@dataclass(frozen=True)
class Survey:
    """A checkpoint that fits its family's plan.

    Attributes:
        checkpoint: the source.
        choices: what the developer chose.
        family: the checkpoint's family.
        options: its configuration.
        plan: its symmetry plan.
        info: what `device.json` will say.
    """

    checkpoint: Checkpoint
    choices: Choices
    family: Family
    options: Options
    plan: Plan
    info: DeviceInfo

    @property
    def size_bytes(self) -> int:
        """Bytes of the source's tensors."""
        return sum(entry.size_bytes for entry in self.checkpoint.entries.values())


def survey(source: str, choices: Choices) -> Survey:
    """Compares a checkpoint with its family's plan; reads headers, no weights.

    Args:
        source: a folder or a hub id.
        choices: what the developer chose.

    Raises:
        UnsupportedModelError: a family or option without a plan.
        UnknownTensorError: a tensor without a rule, or a missing one.
        CheckpointError: a checkpoint that cannot be read.
    """
    checkpoint = Checkpoint.open(fetch(source))
    family = family_of(checkpoint.config)
    options = Options(checkpoint.config, family.known)
    plan = family.plan(options)
    tensors = _canonical(plan, checkpoint)
    plan.check(tensors)
    _check_dtypes(plan, tensors)
    _check_tie(plan, checkpoint)
    tokenizer_files(checkpoint.folder)
    info = device_info(
        checkpoint,
        plan,
        dtype=tensors[plan.embedding].dtype,
        interface=choices.interface,
        epoch=choices.epoch,
    )
    return Survey(checkpoint, choices, family, options, plan, info)


def _canonical(plan: Plan, checkpoint: Checkpoint) -> dict[str, TensorEntry]:
    tensors: dict[str, TensorEntry] = {}
    for shard in checkpoint.shards:
        for name, entry in shard.entries.items():
            if plan.canonical(name) in tensors:
                raise CheckpointError(
                    f"{checkpoint.folder} has the tensor {name!r} twice, with and without "
                    f"{plan.prefix!r} or in two files"
                )
            tensors[plan.canonical(name)] = entry
    return tensors


def _check_dtypes(plan: Plan, tensors: Mapping[str, TensorEntry]) -> None:
    for name, entry in tensors.items():
        if plan.rule(name).fate is not Fate.DROPPED and entry.dtype not in DTYPES:
            raise UnsupportedModelError(
                f"tensor {name!r} is {entry.dtype}; there is a plan for: {', '.join(DTYPES)} "
                f"(protect first, then quantise)"
            )
    if plan.positions and tensors[plan.positions].dtype != tensors[plan.embedding].dtype:
        raise UnsupportedModelError(
            f"{plan.embedding!r} and {plan.positions!r} differ in dtype; save the checkpoint "
            f"in one"
        )


def _check_tie(plan: Plan, checkpoint: Checkpoint) -> None:
    """Refuses a head that the configuration calls tied and the file makes different."""
    if not plan.tied:
        return
    found = {
        plan.canonical(name): shard.bits(name)
        for shard in checkpoint.shards
        for name in shard.entries
        if plan.canonical(name) in (plan.embedding, plan.head)
    }
    head, table = found.get(plan.head), found[plan.embedding]
    if head is None:
        return
    for start in range(0, plan.vocabulary, _COMPARED_ROWS):
        rows = slice(start, start + _COMPARED_ROWS)
        if not np.array_equal(head[rows], table[rows]):
            raise UnsupportedModelError(
                f"config.json ties {plan.head!r} to {plan.embedding!r}, but the checkpoint has "
                f"two different ones; set tie_word_embeddings to false if both are meant"
            )
