"""The compiler: a checkpoint in, a protected model, a bundle and a secret out.

    OUT/model     for the cloud: an ordinary Hugging Face folder, keyed
    OUT/device    for devices: keyed tables, the head's order, the tokenizer
    OUT/secrets   for the developer alone: the master key

Tensor files are read memory-mapped and written piece by piece, so a model may be larger than
the memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from triparty.common.console import Advance, progress
from triparty.common.files import make_private_folder, write_private
from triparty.common.tensorfile import TensorEntry, TensorFile
from triparty.developer.protect.bundle import write_bundle
from triparty.developer.protect.checkpoints import INDEX_FILE, SINGLE_FILE
from triparty.developer.protect.keys import DERIVATION_VERSION, Keys
from triparty.developer.protect.output import (
    Pieces,
    check_absent,
    json_bytes,
    new_folder,
    write_json,
    write_tensors,
)
from triparty.developer.protect.plans import Fate
from triparty.developer.protect.survey import Choices, Survey, survey
from triparty.developer.protect.transforms import CHUNK_BYTES, SignedPermutation, moved

MODEL_FOLDER, DEVICE_FOLDER, SECRETS_FOLDER = "model", "device", "secrets"
MASTER_FILE = "master.key"
KEY_FILE = "key.json"


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
        _write_secrets(folder / SECRETS_FOLDER, source, decided, keys, seed=seed)
    return decided


def _write_secrets(
    folder: Path, source: str, decided: Survey, keys: Keys, *, seed: int | None
) -> None:
    make_private_folder(folder)
    write_private(folder / MASTER_FILE, keys.master)
    described = {
        "family": decided.family.model_type,
        "scheme": decided.choices.scheme,
        "interface": decided.choices.interface,
        "epoch": decided.choices.epoch,
        "derivation_version": DERIVATION_VERSION,
        "reproducible_seed": seed is not None,
        # To protect it again under the next key; a hub id stays one.
        "source": str(Path(source).expanduser().resolve()) if _is_folder(source) else source,
    }
    write_private(folder / KEY_FILE, json_bytes(described))


def _is_folder(source: str) -> bool:
    return Path(source).expanduser().is_dir()


class _Compilation:
    """One source under one set of keys."""

    def __init__(self, decided: Survey, keys: Keys, advance: Advance) -> None:
        self._decided, self._keys, self._advance = decided, keys, advance
        self._plan, self._checkpoint = decided.plan, decided.checkpoint
        self._drawn: dict[str, SignedPermutation] = {}
        self._places = {
            self._plan.canonical(name): (shard, name)
            for shard in self._checkpoint.shards
            for name in shard.entries
        }

    def write_model(self, folder: Path) -> None:
        """The cloud's folder: every file of the source, rewritten, and a configuration."""
        weight_map: dict[str, str] = {}
        total = 0
        for shard in self._checkpoint.shards:
            hosted = self._hosted(shard)
            entries = {name: entry for name, (entry, _) in hosted.items()}
            pieces = {name: piece for name, (_, piece) in hosted.items()}
            write_tensors(folder / self._file_name(shard), entries, pieces)
            weight_map |= dict.fromkeys(hosted, self._file_name(shard))
            total += sum(entry.size_bytes for entry in entries.values())
        if len(self._checkpoint.shards) > 1:
            index = {"metadata": {"total_size": total}, "weight_map": weight_map}
            write_json(folder / INDEX_FILE, index)
        family = self._decided.family
        config = self._decided.options.hosted(family.model_type, family.architecture)
        write_json(folder / "config.json", config)

    def write_device(self, folder: Path) -> None:
        """The device's folder."""
        plan = self._plan
        tables = {"rows": self._keyed(plan.embedding, plan.embedding)}
        if plan.positions:
            tables["positions"] = self._keyed(plan.positions, plan.positions)
        vocabulary = self._transform(plan.spaces_of(plan.head)[0])
        source = self._checkpoint.folder
        write_bundle(folder, self._decided.info, tables, vocabulary, source)

    def _file_name(self, shard: TensorFile) -> str:
        return shard.path.name if len(self._checkpoint.shards) > 1 else SINGLE_FILE

    def _hosted(self, shard: TensorFile) -> dict[str, tuple[TensorEntry, Pieces]]:
        """What the rewritten file of a shard holds."""
        plan = self._plan
        hosted: dict[str, tuple[TensorEntry, Pieces]] = {}
        for stored, entry in shard.entries.items():
            name = plan.canonical(stored)
            match plan.rule(name).fate:
                case Fate.HOSTED:
                    hosted[name] = self._keyed(name, name)
                case Fate.ON_DEVICE:
                    hosted[name] = (entry, self._counted(partial(_zeros, entry)))
            if name == plan.embedding and plan.head not in self._places:
                hosted[plan.head] = self._keyed(plan.embedding, plan.head)  # untied
        return hosted

    def _keyed(self, source: str, name: str) -> tuple[TensorEntry, Pieces]:
        """The tensor `source` under the spaces that the plan gives to `name`."""
        shard, stored = self._places[source]
        axes = [self._transform(spaces) for spaces in self._plan.spaces_of(name)]
        pieces = self._counted(lambda: moved(shard.bits(stored), axes))
        return shard.entries[stored], pieces

    def _transform(self, spaces: tuple[str, ...]) -> SignedPermutation:
        for space in spaces:
            if space not in self._drawn:
                self._drawn[space] = self._plan.spaces[space].draw(self._keys)
        return SignedPermutation.joined([self._drawn[space] for space in spaces])

    def _counted(self, pieces: Pieces) -> Pieces:
        def counted() -> Iterator[NDArray[Any]]:
            for piece in pieces():
                yield piece
                self._advance(piece.nbytes)

        return counted


def _zeros(entry: TensorEntry) -> Iterator[NDArray[Any]]:
    left = entry.size_bytes
    while left:
        size = min(left, CHUNK_BYTES)
        yield np.zeros(size, np.uint8)
        left -= size
