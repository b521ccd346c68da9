"""A model of the interface `tokens`, from the compiler, and its ids and words."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from family_law import write_tokenizer
from numpy.typing import NDArray

from triparty.common import opaque
from triparty.common.keying import Bundle
from triparty.developer.protect import Choices, Interface, protect


@dataclass(frozen=True, eq=False)
class Permuted:
    """`OUT` with `model` and `device`, and what a device does with the second.

    Attributes:
        out: the folder.
        bundle: its `device`.
    """

    out: Path
    bundle: Bundle

    @property
    def model(self) -> Path:
        return self.out / "model"

    @property
    def device(self) -> Path:
        return self.out / "device"

    @cached_property
    def order(self) -> NDArray[np.int64]:
        """(V,) the keyed id of each plain id."""
        ids = np.arange(self.bundle.info.vocabulary)
        return np.concatenate([self.bundle.keyed_ids(ids[i : i + 1]) for i in ids])

    def words(self, ids: Any) -> str:
        """The opaque words of plain ids."""
        return opaque.words(self.bundle.keyed_ids(np.asarray(ids, np.int64)))

    def plain(self, words: str) -> list[int]:
        """The plain ids of opaque words."""
        keyed = opaque.ids(words, self.bundle.info.vocabulary)
        return [int(n) for n in self.bundle.plain_ids(keyed)]


def permute(source: Path, out: Path, *, seed: int = 7, **generation: Any) -> Permuted:
    """Protects a checkpoint; `generation` changes its configurations first."""
    with_rules = out.with_name(f"{out.name}-source")
    shutil.copytree(source, with_rules)
    config = json.loads((source / "config.json").read_text())
    for name in ("config.json", "generation_config.json"):
        file = with_rules / name
        document = json.loads(file.read_text()) if file.is_file() else {}
        file.write_text(json.dumps(document | generation))
    if not (with_rules / "tokenizer.json").is_file():
        write_tokenizer(with_rules, int(config["vocab_size"]))
    choices = Choices(interface=Interface.TOKENS)
    protect(str(with_rules), out, choices=choices, seed=seed)
    return Permuted(out, Bundle.open(out / "device"))
