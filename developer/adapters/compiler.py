"""Compiles a LoRA adapter under the key of a protected model.

An adapter adds B A to a layer's weight. A reads what the layer reads and B writes what it
writes, so both get the transforms of its axes; between them lies a space of its own, which is
keyed as well. Where a norm's weights were folded into the layer, A takes them too; what the
norm's bias adds, B A beta, becomes the bias of B.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from triparty.common.errors import (
    CheckpointError,
    PathError,
    SettingsError,
    UnknownTensorError,
    UnsupportedModelError,
)
from triparty.common.files import safe_relative, sha256_file
from triparty.common.tensorfile import TensorEntry, TensorFile
from triparty.developer.adapters.settings import (
    CONFIG_FILE,
    PREFIX,
    WEIGHTS_FILE,
    AdapterSettings,
)
from triparty.developer.adapters.tensors import Pair, opened, pairs
from triparty.developer.protect.checkpoints import read_json
from triparty.developer.protect.modelkey import ModelKey
from triparty.developer.protect.output import (
    Made,
    check_absent,
    new_folder,
    write_json,
    write_tensors,
)
from triparty.developer.protect.rekeying import Matter, rekeyed, to_bits, to_floats
from triparty.developer.protect.rules import Axis, Fate, NormRule, Role, Rule
from triparty.developer.protect.spaces import mixed
from triparty.developer.protect.transforms import Transform

ADAPTERS_FOLDER = "adapters"
_COMPARED_ROWS = 4096


@dataclass(frozen=True)
class ProtectedAdapter:
    """What was written.

    Attributes:
        folder: where.
        modules: that it changes, by their names in the model.
        rank: the largest r.
        biased: whether B has a bias now, which `lora_bias` of `peft` says.
    """

    folder: Path
    modules: tuple[str, ...]
    rank: int
    biased: bool


def protect_adapter(
    adapter: Path, out: Path, *, name: str | None = None, source: str | None = None
) -> ProtectedAdapter:
    """Re-keys an adapter of the original: writes `out/adapters/NAME`, whole or not at all.

    Law: the protected model with it answers what the original answers with `adapter`, keyed.

    Args:
        adapter: a folder that `peft` wrote: its configuration and its tensors.
        out: what `protect` wrote, with `out/secrets`.
        name: of the adapter; None for that of its folder.
        source: the original model, if it lies elsewhere than when it was protected.

    Raises:
        SettingsError: a name that is no name of a folder.
        StateError: there is such an adapter, or `out/secrets` is gone.
        UnsupportedModelError: more than low-rank changes of linear layers.
        CheckpointError: an adapter of another model, or one that cannot be read.
    """
    target = _target(out, name or adapter.resolve().name)
    check_absent(target)
    settings = AdapterSettings.of(read_json(adapter / CONFIG_FILE))
    file = opened(adapter)
    compilation = _Compilation(ModelKey.open(out, source), settings, file)
    tensors = compilation.tensors()
    with new_folder(target) as folder:
        write_tensors(folder / WEIGHTS_FILE, tensors)
        document = settings.document(compilation.modules, biased=compilation.biased)
        write_json(folder / CONFIG_FILE, document)
    rank = max(pair.rank for pair in compilation.pairs.values())
    return ProtectedAdapter(target, compilation.modules, rank, compilation.biased)


def _target(out: Path, name: str) -> Path:
    try:
        safe_relative(name)
    except PathError as error:
        raise SettingsError(f"no name of an adapter: {error.message}") from error
    if "/" in name:
        raise SettingsError(f"no name of an adapter: {name!r} has a slash")
    return out / ADAPTERS_FOLDER / name


class _Compilation:
    """One adapter under one key."""

    def __init__(self, key: ModelKey, settings: AdapterSettings, file: TensorFile) -> None:
        """Compares the adapter with the plan; reads no weight of it."""
        self._key, self._file = key, file
        self._digest = sha256_file(file.path)
        self._given = pairs(file)
        self.pairs: Mapping[str, Pair] = {
            self._module(name): pair for name, pair in self._given.items()
        }
        for module, pair in self.pairs.items():
            self._check(module, pair)
        self.biased = settings.biased or any(
            key.weights.shift(self._rule(module)) is not None for module in self.pairs
        )

    @property
    def modules(self) -> tuple[str, ...]:
        """Full names of the modules that the adapter changes."""
        return tuple(self.pairs)

    def tensors(self) -> dict[str, Made]:
        """The protected adapter's tensors by name."""
        made: dict[str, Made] = {}
        for module, pair in self.pairs.items():
            down, up = self._axes(module, pair)
            at = f"{PREFIX}{module}."
            made[f"{at}lora_A.weight"] = down
            made[f"{at}lora_B.weight"] = up
            if self.biased:
                made[f"{at}lora_B.bias"] = self._bias(module, pair)
        return made

    def _axes(self, module: str, pair: Pair) -> tuple[Made, Made]:
        """A and B under the transforms of their axes."""
        rule, weights = self._rule(module), self._key.weights
        reads, writes = _axis(rule, Role.READS), _axis(rule, Role.WRITES)
        label = f"adapter {self._digest} {module} rank"
        space = mixed(label, pair.rank, scheme=self._key.secret.choices.scheme)
        rank = space.draw(self._key.secret.keys)
        down = replace(self._matter(pair.down), scale=(None, weights.fold_scale(rule, reads)))
        up = replace(self._matter(pair.up), factor=rule.factor)
        return (
            _made(down, (rank, weights.transform(reads))),
            _made(up, (weights.transform(writes), rank.dual())),
        )

    def _bias(self, module: str, pair: Pair) -> Made:
        """B's own bias and what the folded norm's bias adds, as B writes it."""
        rule = self._rule(module)
        entry = self._file.entries[pair.up]
        total = np.zeros(entry.shape[0])
        if pair.bias is not None:
            total += self._values(pair.bias)
        beta = self._key.weights.shift(rule)
        if beta is not None:
            total += self._values(pair.up) @ (self._values(pair.down) @ beta)
        writes = self._key.weights.transform(_axis(rule, Role.WRITES))
        keyed = writes.apply(rule.factor * total, 0)

        def pieces() -> Iterator[NDArray[Any]]:
            yield to_bits(keyed, entry.dtype)

        return Made(TensorEntry(entry.dtype, keyed.shape, 0), pieces)

    def _module(self, name: str) -> str:
        """The full name of a module, whether or not the adapter leaves the prefix out."""
        try:
            return self._key.decided.plan.canonical(f"{name}.weight").removesuffix(".weight")
        except UnknownTensorError as error:
            raise UnknownTensorError(
                f"the adapter changes {name!r}, which is no module of this "
                f"{self._key.secret.family} model: was it trained on "
                f"{self._key.secret.source}?"
            ) from error

    def _check(self, module: str, pair: Pair) -> None:
        """Refuses what is no linear layer, and shapes of another model."""
        rule = self._rule(module)
        head = self._key.decided.plan.device_head
        if head is not None and rule.pattern == head.weight:
            raise UnsupportedModelError(
                f"the adapter changes {module!r}, which devices have and not the cloud, where "
                f"adapters are loaded: merge the adapter into the model (merge_and_unload) and "
                f"protect that, or protect the model with the head on the cloud"
            )
        if rule.fate is not Fate.HOSTED or Role.READS not in {a.role for a in rule.axes}:
            what = "a norm" if isinstance(rule, NormRule) else "no linear layer of the cloud's"
            raise UnsupportedModelError(
                f"the adapter changes {module!r}, which is {what}: merge the adapter into the "
                f"model (merge_and_unload) and protect that"
            )
        if rule.experts is not None:
            raise UnsupportedModelError(
                f"the adapter changes {module!r}, an expert; experts trade places, and there "
                f"is no plan for their adapters: merge it into the model and protect that"
            )
        plan = self._key.decided.plan
        sizes = dict(zip((a.role for a in rule.axes), plan.shape_of(rule.pattern), strict=True))
        expected = (sizes[Role.READS], sizes[Role.WRITES])
        entries = self._file.entries
        found = (entries[pair.down].shape[1], entries[pair.up].shape[0])
        bias = entries[pair.bias].shape if pair.bias else expected[1:]
        if found != expected or bias != expected[1:]:
            raise CheckpointError(
                f"the adapter's {module!r} reads {found[0]} and writes {found[1]} numbers, the "
                f"model's {expected[0]} and {expected[1]}: was it trained on "
                f"{self._key.secret.source}?"
            )
        if pair.base is not None and not self._is_the_originals(module, pair.base):
            raise UnsupportedModelError(
                f"the adapter brings {module!r} itself along ({pair.base!r}), and not the "
                f"original's: merge the adapter into the model (merge_and_unload) and protect "
                f"that"
            )

    def _is_the_originals(self, module: str, base: str) -> bool:
        """Whether a layer's weight is the original's, rounded to the adapter's dtype."""
        dtype, found = self._file.entries[base].dtype, self._file.bits(base)
        own, expected = self._key.weights.original(f"{module}.weight")
        if found.shape != expected.shape:
            return False
        rows = range(0, len(found), _COMPARED_ROWS)
        blocks = (slice(start, start + _COMPARED_ROWS) for start in rows)
        return all(
            np.array_equal(found[at], to_bits(to_floats(expected[at], own), dtype))
            for at in blocks
        )

    def _rule(self, module: str) -> Rule:
        return self._key.decided.plan.rule(f"{module}.weight")

    def _matter(self, name: str) -> Matter:
        return Matter.stored(name, self._file.entries[name].dtype, self._file.bits(name))

    def _values(self, name: str) -> NDArray[np.float64]:
        dtype = self._file.entries[name].dtype
        return to_floats(self._file.bits(name), dtype).astype(np.float64)


def _axis(rule: Rule, role: Role) -> Axis:
    return next(axis for axis in rule.axes if axis.role is role)


def _made(matter: Matter, axes: tuple[Transform, Transform]) -> Made:
    shape = tuple(axis.new_size for axis in axes)
    return Made(TensorEntry(matter.dtype, shape, 0), lambda: rekeyed(matter, axes))
