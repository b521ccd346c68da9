"""The compiler: a checkpoint in, a protected model, a bundle and a secret out.

    OUT/model     for the cloud: an ordinary Hugging Face folder, keyed
    OUT/device    for devices: keyed tables, the head's order, the tokenizer
    OUT/secrets   for the developer alone: the master key

Tensor files are read memory-mapped and written piece by piece, so a model may be larger than
the memory. A run that is killed leaves its work beside OUT, and the same command goes on there
(`workspace.py`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from triparty.common.console import Advance, progress
from triparty.common.errors import StateError
from triparty.common.files import make_private_folder, write_atomic
from triparty.common.keying import EMBEDDING_FILE, HEAD_FILE
from triparty.common.opaque import tokenizer_files
from triparty.common.tensorfile import TensorFile
from triparty.developer.protect.bundle import answers, write_bundle
from triparty.developer.protect.checkpoints import INDEX_FILE, SINGLE_FILE, Checkpoint
from triparty.developer.protect.choices import Choices, Interface, Norms
from triparty.developer.protect.configuration import hosted_config, hosted_generation
from triparty.developer.protect.fingerprint import fingerprint
from triparty.developer.protect.keys import Keys
from triparty.developer.protect.output import Made, check_absent, write_json
from triparty.developer.protect.plans import VOCABULARY, Plan
from triparty.developer.protect.rules import Fate
from triparty.developer.protect.secret import SECRETS_FOLDER, Secret, resolved
from triparty.developer.protect.survey import Survey, survey
from triparty.developer.protect.weights import Weights
from triparty.developer.protect.workspace import (
    Workspace,
    check_space,
    is_just_made,
    workspace,
)

MODEL_FOLDER, DEVICE_FOLDER = "model", "device"


def protect(
    source: str,
    out: Path,
    *,
    choices: Choices | None = None,
    seed: int | None = None,
    restart: bool = False,
) -> Survey:
    """Re-keys a model: writes `out/model`, `out/device` and `out/secrets`, all or nothing.

    Law: the protected model, fed keyed rows, answers the original's logits, keyed. A run that
    was killed at any moment and is repeated writes what it would have written.

    Args:
        source: a folder or a hub id.
        out: a folder that does not exist yet.
        choices: scheme, interface and epoch; None for the defaults.
        seed: derives the master key from a number that anybody can guess, for reproducible
            tests only; None takes it from the operating system.
        restart: discard what a killed run left, instead of going on with it.

    Returns:
        What was decided before the work.

    Raises:
        StateError: `out` exists or is inside of the source, another process makes it, an
            earlier run began to make something else there, or the disk is too small.
        CheckpointError: a checkpoint that cannot be protected.
    """
    _check_apart(source, out)
    if restart or not is_just_made(out):
        check_absent(out)
    decided = survey(source, choices or Choices())
    if not is_just_made(out):
        check_space(out, written_bytes(decided))
    of = fingerprint(decided, seed=seed)
    keys = Keys.fresh() if seed is None else Keys.of_seed(seed)
    with workspace(out, of, keys, restart=restart) as work:
        if work.is_finished:
            return decided
        _Compilation(decided, work.keys).write(work)
        secret = Secret(
            keys=work.keys,
            choices=decided.choices,
            source=resolved(source),
            family=decided.plan.family,
            seeded=seed is not None,
        )
        secret.write(work.folder / SECRETS_FOLDER)
        work.finish()
    return decided


def _check_apart(source: str, out: Path) -> None:
    """Refuses to put keys into the folder of a checkpoint that others may get a copy of."""
    folder = Path(source).expanduser()
    if folder.is_dir() and folder.resolve() in out.expanduser().resolve().parents:
        raise StateError(
            f"{out} is inside of the checkpoint {folder}, which would then hold its own keys: "
            "name a folder elsewhere"
        )


def written_bytes(decided: Survey) -> int:
    """Bytes of all tensors that the compiler writes for cloud and device."""
    return _Compilation(decided, Keys.fresh()).size_bytes


@dataclass(frozen=True)
class _Compilation:
    """One source under one set of keys."""

    decided: Survey
    keys: Keys

    @property
    def size_bytes(self) -> int:
        """Bytes of all tensors."""
        return sum(
            made.entry.size_bytes
            for tensors in self._tensor_files.values()
            for made in tensors.values()
        )

    def write(self, work: Workspace) -> None:
        """Everything but the secrets, or what is missing of it."""
        with progress("re-keying", self.size_bytes, in_bytes=True) as advance:
            advance(work.written_bytes)
            for name, tensors in self._tensor_files.items():
                counted = {name: _counted(made, advance) for name, made in tensors.items()}
                work.write_tensors(name, counted)
        model, device = work.folder / MODEL_FOLDER, work.folder / DEVICE_FOLDER
        self._write_index(model)
        self._write_configuration(model)
        make_private_folder(device)  # plain tokenizer, keyed tables: for the developer to send
        pixels = self._plan.pixels
        write_bundle(
            device,
            self.decided.info,
            self._head(),
            self._checkpoint.folder,
            mix=None if pixels is None else self._weights.matrix_of(pixels),
            labels=self._plan.labels,
            encoding=self.decided.encoding,
        )

    @property
    def _plan(self) -> Plan:
        return self.decided.plan

    @property
    def _checkpoint(self) -> Checkpoint:
        return self.decided.checkpoint

    @cached_property
    def _weights(self) -> Weights:
        fold = self.decided.choices.norms is Norms.FOLD
        return Weights(self._plan, self._checkpoint.shards, self.keys, fold=fold)

    @cached_property
    def _tensor_files(self) -> Mapping[str, Mapping[str, Made]]:
        """Every large file: those of the source, rewritten, and the device's tables."""
        files = {
            f"{MODEL_FOLDER}/{self._file_name(shard)}": {
                name: self._weights.hosted(name) for name in self._names(shard)
            }
            for shard in self._checkpoint.shards
        }
        tables = self._weights.device_tables()
        head = self._weights.device_head()
        on_device = {EMBEDDING_FILE: tables, HEAD_FILE: head}
        return files | {f"{DEVICE_FOLDER}/{name}": t for name, t in on_device.items() if t}

    def _write_index(self, folder: Path) -> None:
        """Which file has which tensor, where there are several."""
        names = [self._file_name(shard) for shard in self._checkpoint.shards]
        if len(names) == 1:
            return
        files = {name: self._tensor_files[f"{MODEL_FOLDER}/{name}"] for name in names}
        weight_map = {tensor: name for name, tensors in files.items() for tensor in tensors}
        total = sum(m.entry.size_bytes for tensors in files.values() for m in tensors.values())
        index = {"metadata": {"total_size": total}, "weight_map": weight_map}
        write_json(folder / INDEX_FILE, index)

    def _head(self) -> dict[str, NDArray[Any]] | None:
        if self._plan.device_head is not None:
            return None
        tokens = None
        if self._tokens and self._plan.output_space != VOCABULARY:
            tokens = self._weights.order_of(VOCABULARY)
        return answers(self._weights.output(), tokens)

    @property
    def _tokens(self) -> bool:
        return self.decided.choices.interface is Interface.TOKENS

    def _write_configuration(self, folder: Path) -> None:
        decided, plan = self.decided, self._plan
        order = self._weights.order_of(VOCABULARY).order() if self._tokens else None
        config = hosted_config(decided.options, plan, decided.architecture, order)
        write_json(folder / "config.json", config)
        if order is None:
            return
        # Stock classes take what is said there from config.json where there is no such file.
        named = self._checkpoint.optional_json("generation_config.json")
        generation = named or self._checkpoint.config
        write_json(folder / "generation_config.json", hosted_generation(generation, order))
        for name, data in tokenizer_files(plan.vocabulary).items():
            write_atomic(folder / name, data)

    def _file_name(self, shard: TensorFile) -> str:
        return shard.path.name if len(self._checkpoint.shards) > 1 else SINGLE_FILE

    def _names(self, shard: TensorFile) -> list[str]:
        """The tensors of a rewritten file: the source's, and those tied to one of them."""
        plan = self._plan
        held = [plan.canonical(name) for name in shard.entries]
        everywhere = {plan.canonical(name) for name in self._checkpoint.entries}
        tied = [
            name
            for name, source in plan.ties.items()
            if source in held and name not in everywhere
        ]
        return [name for name in held + tied if plan.rule(name).fate is not Fate.DROPPED]


def _counted(made: Made, advance: Advance) -> Made:
    def counted() -> Iterator[NDArray[Any]]:
        for piece in made.pieces():
            yield piece
            advance(piece.nbytes)

    return Made(made.entry, counted)
