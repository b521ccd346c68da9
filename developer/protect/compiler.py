"""The compiler: a checkpoint in, a protected model, a bundle and a secret out.

    OUT/model     for the cloud: an ordinary Hugging Face folder, keyed
    OUT/device    for devices: keyed tables, the head's order, the tokenizer
    OUT/secrets   for the developer alone: the master key

Tensor files are read memory-mapped and written piece by piece, so a model may be larger than
the memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from triparty.common.console import Advance, progress
from triparty.common.files import write_atomic
from triparty.common.opaque import tokenizer_files
from triparty.common.tensorfile import TensorFile
from triparty.developer.protect.bundle import answers, write_bundle
from triparty.developer.protect.checkpoints import INDEX_FILE, SINGLE_FILE
from triparty.developer.protect.choices import Choices, Interface, Norms
from triparty.developer.protect.configuration import hosted_config, hosted_generation
from triparty.developer.protect.keys import Keys
from triparty.developer.protect.output import (
    Made,
    check_absent,
    new_folder,
    write_json,
    write_tensors,
)
from triparty.developer.protect.plans import VOCABULARY
from triparty.developer.protect.rules import Fate
from triparty.developer.protect.secret import Secret, resolved
from triparty.developer.protect.survey import Survey, survey
from triparty.developer.protect.weights import Weights

MODEL_FOLDER, DEVICE_FOLDER, SECRETS_FOLDER = "model", "device", "secrets"


def protect(
    source: str,
    out: Path,
    *,
    choices: Choices | None = None,
    seed: int | None = None,
) -> Survey:
    """Re-keys a model: writes `out/model`, `out/device` and `out/secrets`, all or nothing.

    Law: the protected model, fed keyed rows, answers the original's logits, keyed.

    Args:
        source: a folder or a hub id.
        out: a folder that does not exist yet.
        choices: scheme, interface and epoch; None for the defaults.
        seed: derives the master key from a number that anybody can guess, for reproducible
            tests only; None takes it from the operating system.

    Returns:
        What was decided before the work.

    Raises:
        StateError: `out` exists.
        CheckpointError: a checkpoint that cannot be protected.
    """
    check_absent(out)
    decided = survey(source, choices or Choices())
    keys = Keys.fresh() if seed is None else Keys.of_seed(seed)
    with new_folder(out) as folder, progress("re-keying", decided.size_bytes) as advance:
        for name in (MODEL_FOLDER, DEVICE_FOLDER):
            (folder / name).mkdir()
        compilation = _Compilation(decided, keys, advance)
        compilation.write_model(folder / MODEL_FOLDER)
        compilation.write_device(folder / DEVICE_FOLDER)
        secret = Secret(
            keys=keys,
            choices=decided.choices,
            source=resolved(source),
            family=decided.plan.family,
            seeded=seed is not None,
        )
        secret.write(folder / SECRETS_FOLDER)
    return decided


class _Compilation:
    """One source under one set of keys."""

    def __init__(self, decided: Survey, keys: Keys, advance: Advance) -> None:
        self._decided, self._advance = decided, advance
        self._plan, self._checkpoint = decided.plan, decided.checkpoint
        fold = decided.choices.norms is Norms.FOLD
        self._weights = Weights(self._plan, self._checkpoint.shards, keys, fold=fold)

    def write_model(self, folder: Path) -> None:
        """The cloud's folder: every file of the source, rewritten, and a configuration."""
        weight_map: dict[str, str] = {}
        total = 0
        for shard in self._checkpoint.shards:
            hosted = {name: self._weights.hosted(name) for name in self._names(shard)}
            counted = {name: self._counted(made) for name, made in hosted.items()}
            write_tensors(folder / self._file_name(shard), counted)
            weight_map |= dict.fromkeys(hosted, self._file_name(shard))
            total += sum(made.entry.size_bytes for made in hosted.values())
        if len(self._checkpoint.shards) > 1:
            index = {"metadata": {"total_size": total}, "weight_map": weight_map}
            write_json(folder / INDEX_FILE, index)
        self._write_configuration(folder)

    def write_device(self, folder: Path) -> None:
        """The device's folder."""
        output, tokens = self._weights.output(), None
        if self._tokens and self._plan.output_space != VOCABULARY:
            tokens = self._weights.order_of(VOCABULARY)
        tables = self._weights.device_tables()
        counted = {name: self._counted(made) for name, made in tables.items()}
        head = answers(output, tokens)
        pixels = self._plan.pixels
        write_bundle(
            folder,
            self._decided.info,
            counted,
            head,
            self._checkpoint.folder,
            mix=None if pixels is None else self._weights.matrix_of(pixels),
            labels=self._plan.labels,
        )

    @property
    def _tokens(self) -> bool:
        return self._decided.choices.interface is Interface.TOKENS

    def _write_configuration(self, folder: Path) -> None:
        decided, plan = self._decided, self._plan
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

    def _counted(self, made: Made) -> Made:
        def counted() -> Iterator[NDArray[Any]]:
            for piece in made.pieces():
                yield piece
                self._advance(piece.nbytes)

        return Made(made.entry, counted)
