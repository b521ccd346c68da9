"""What a compilation will do, decided before a byte is written.

Everything that can be refused is refused here, from `config.json` and the headers of the
tensor files.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from triparty.common.deviceinfo import DeviceInfo
from triparty.common.encodinginfo import EncodingInfo
from triparty.common.errors import CheckpointError, UnsupportedModelError
from triparty.common.tensorfile import TensorEntry
from triparty.developer.protect.bundle import device_info
from triparty.developer.protect.checkpoints import (
    Checkpoint,
    fetch,
    read_json,
    tokenizer_files,
)
from triparty.developer.protect.choices import Choices, Head
from triparty.developer.protect.device_head import with_device_head
from triparty.developer.protect.encoding import encoding_of
from triparty.developer.protect.families import family_of
from triparty.developer.protect.options import Options
from triparty.developer.protect.plans import Plan
from triparty.developer.protect.quantised import (
    refuse_quantised_config,
    refuse_quantised_tensors,
)
from triparty.developer.protect.rekeying import DTYPES
from triparty.developer.protect.rules import Fate

_COMPARED_ROWS = 4096


@dataclass(frozen=True)
class Survey:
    """A checkpoint that fits its family's plan.

    Attributes:
        checkpoint: the source.
        choices: what the developer chose.
        architecture: class of the model.
        options: its configuration.
        plan: its symmetry plan.
        info: what `device.json` will say.
        encoding: what `encoding.json` will say, if the model has a use for it.
    """

    checkpoint: Checkpoint
    choices: Choices
    architecture: str
    options: Options
    plan: Plan
    info: DeviceInfo
    encoding: EncodingInfo | None = None

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
    folder = fetch(source)
    refuse_quantised_config(read_json(folder / "config.json"))
    checkpoint = Checkpoint.open(folder)
    refuse_quantised_tensors(checkpoint.entries)
    family, architecture = family_of(checkpoint.config)
    options = Options(checkpoint.config, family.known)
    plan = family.plan(options, choices, architecture)
    if choices.head is Head.DEVICE:
        plan = with_device_head(plan, options)
    tensors = _canonical(plan, checkpoint)
    plan.check(tensors)
    _check_dtypes(plan, tensors)
    _check_ties(plan, checkpoint)
    if plan.vocabulary:
        tokenizer_files(checkpoint.folder)
    info = device_info(checkpoint, plan, choices, dtype=_device_dtype(plan, tensors))
    encoding = encoding_of(checkpoint, plan.task)
    return Survey(checkpoint, choices, architecture, options, plan, info, encoding)


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


def _device_dtype(plan: Plan, tensors: Mapping[str, TensorEntry]) -> str:
    """The dtype of the device's tables, or of the model where it has none."""
    tables = {tensors[rule.pattern].dtype for rule in plan.device_tables().values()}
    if len(tables) > 1:
        raise UnsupportedModelError(
            f"the tables that devices look up differ in dtype ({', '.join(sorted(tables))}); "
            f"save the checkpoint in one"
        )
    kept = [entry for n, entry in tensors.items() if plan.rule(n).fate is not Fate.DROPPED]
    largest = max(kept, key=lambda entry: entry.size_bytes)
    return DTYPES[tables.pop() if tables else largest.dtype]


def _check_ties(plan: Plan, checkpoint: Checkpoint) -> None:
    """Refuses tensors that the configuration calls tied and the file makes different."""
    found = {
        plan.canonical(name): shard.bits(name)
        for shard in checkpoint.shards
        for name in shard.entries
    }
    for tied, source in plan.ties.items():
        if tied in plan.separable or tied not in found or source not in found:
            continue
        for start in range(0, len(found[source]), _COMPARED_ROWS):
            rows = slice(start, start + _COMPARED_ROWS)
            if not np.array_equal(found[tied][rows], found[source][rows]):
                raise UnsupportedModelError(
                    f"config.json ties {tied!r} to {source!r}, but the checkpoint has two "
                    f"different ones; set tie_word_embeddings to false if both are meant"
                )
