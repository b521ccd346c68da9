"""Makes every tensor of a protected model again and compares it with what lies in the folder.

Finds files that were damaged, changed, or made of another source or key. It cannot find a
wrong plan: that makes the same wrong tensor twice (`layers.py` finds it).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from triparty.common.deviceinfo import DeviceInfo
from triparty.common.errors import TripartyError
from triparty.common.keying import DEVICE_FILE, EMBEDDING_FILE, HEAD_FILE
from triparty.common.tensorfile import TensorEntry, TensorFile
from triparty.developer.inspection.tolerances import largest_size
from triparty.developer.protect.bundle import answers
from triparty.developer.protect.checkpoints import Checkpoint, read_json
from triparty.developer.protect.choices import Interface
from triparty.developer.protect.compiler import DEVICE_FOLDER, MODEL_FOLDER
from triparty.developer.protect.configuration import hosted_config
from triparty.developer.protect.modelkey import ModelKey
from triparty.developer.protect.output import Made
from triparty.developer.protect.plans import VOCABULARY
from triparty.developer.protect.rekeying import to_floats
from triparty.developer.protect.rules import Axis, Rule
from triparty.developer.protect.transforms import Monomial

CONFIG_FILE = "config.json"
_ROUNDING = {"F64": 2.0**-46, "F32": 2.0**-20, "F16": 2.0**-8, "BF16": 2.0**-5}
"""What another machine's sums may change, as a share of the largest element."""


@dataclass(frozen=True)
class Difference:
    """A tensor that is not what the key makes of the source.

    Attributes:
        folder: that it lies in, `model` or `device`.
        name: of the tensor, or of a file of settings.
        what: what is different.
    """

    folder: str
    name: str
    what: str

    def __str__(self) -> str:
        """As a sentence has it."""
        return f"{self.name} in {self.folder}/ ({self.what})"


def differences(key: ModelKey, out: Path) -> Iterator[Difference]:
    """Every tensor of `out/model` and `out/device` that is not what the key makes.

    Tensors are made a piece at a time. Where sums are taken (dense keys, folded biases), last
    bits that another machine rounds otherwise are no difference.

    Raises:
        CheckpointError: a folder whose files cannot be read.
    """
    yield from _configuration(key, out / MODEL_FOLDER)
    yield from _model(key, Checkpoint.open(out / MODEL_FOLDER).shards)
    yield from _device(key, out / DEVICE_FOLDER)


def _model(key: ModelKey, shards: tuple[TensorFile, ...]) -> Iterator[Difference]:
    held = {name: shard for shard in shards for name in shard.entries}
    rules = key.decided.plan.tensors
    for name, rule in rules.items():
        what = _compared(key, rule, key.weights.hosted(name), held.get(name), name)
        if what is not None:
            yield Difference(MODEL_FOLDER, name, what)
    for name in sorted(set(held) - set(rules)):
        yield Difference(MODEL_FOLDER, name, "no tensor of this model")


def _device(key: ModelKey, folder: Path) -> Iterator[Difference]:
    rules = key.decided.plan.device_tables()
    file = _opened(folder / EMBEDDING_FILE)
    for name, table in key.weights.device_tables().items():
        what = _compared(key, rules[name], table, file, name)
        if what is not None:
            yield Difference(DEVICE_FOLDER, name, what)
    head = _opened(folder / HEAD_FILE)
    on_device = key.decided.plan.device_head
    if on_device is not None:
        rule = key.decided.plan.rule(on_device.weight)
        for name, made in key.weights.device_head().items():
            what = _compared(key, rule, made, head, name)
            if what is not None:
                yield Difference(DEVICE_FOLDER, name, what)
    for name, array in _head(key).items():
        if head is None or name not in head.entries:
            yield Difference(DEVICE_FOLDER, name, "missing")
            continue
        stored = head.bits(name).reshape(-1).view(array.dtype)
        if stored.shape != (array.size,) or not np.allclose(stored, array.reshape(-1)):
            yield Difference(DEVICE_FOLDER, name, "another key of the answer")
    info = folder / DEVICE_FILE
    if not info.is_file() or DeviceInfo.from_json(info.read_bytes()) != key.decided.info:
        yield Difference(DEVICE_FOLDER, DEVICE_FILE, "of another model or choice")


def _head(key: ModelKey) -> Mapping[str, NDArray[Any]]:
    """What `head.safetensors` should hold of how answers are undone."""
    if key.decided.plan.device_head is not None:
        return {}
    sends_ids = key.secret.choices.interface is Interface.TOKENS
    other = key.decided.plan.output_space != VOCABULARY
    order = key.weights.order_of(VOCABULARY) if sends_ids and other else None
    return answers(key.weights.output(), order)


def _configuration(key: ModelKey, folder: Path) -> Iterator[Difference]:
    sends_ids = key.secret.choices.interface is Interface.TOKENS
    order = key.weights.order_of(VOCABULARY).order() if sends_ids else None
    decided = key.decided
    made = hosted_config(decided.options, decided.plan, decided.architecture, order)
    found = read_json(folder / CONFIG_FILE)
    odd = [name for name in sorted({*made, *found}) if made.get(name) != found.get(name)]
    if odd:
        yield Difference(MODEL_FOLDER, CONFIG_FILE, f"says otherwise: {', '.join(odd)}")


def _opened(path: Path) -> TensorFile | None:
    return TensorFile.open(path) if path.is_file() else None


def _compared(
    key: ModelKey, rule: Rule, made: Made, file: TensorFile | None, name: str
) -> str | None:
    """What is different about one tensor, if anything."""
    if file is None or name not in file.entries:
        return "missing"
    entry = file.entries[name]
    if (entry.dtype, entry.shape) != (made.entry.dtype, made.entry.shape):
        return f"{_form(entry)} in place of {_form(made.entry)}"
    try:
        return _elements(made, file.bits(name).reshape(-1), exact=not _summed(key, rule))
    except TripartyError as error:
        return error.message


def _summed(key: ModelKey, rule: Rule) -> bool:
    """Whether elements are sums, which machines round differently."""
    if rule.pattern.endswith(".bias") and rule.after is not None:
        return True
    spaces = (key.weights.transform(Axis(axis.space)) for axis in rule.axes)
    return any(not isinstance(space, Monomial) for space in spaces)


def _elements(made: Made, stored: NDArray[Any], *, exact: bool) -> str | None:
    """Compares pieces with a flat tensor."""
    at = different = 0
    first, apart, largest = -1, 0.0, 0.0
    for piece in made.pieces():
        expected = np.ascontiguousarray(piece).reshape(-1).view(stored.dtype)
        found = stored[at : at + len(expected)]
        plain = to_floats(expected, made.entry.dtype)
        largest = max(largest, largest_size(plain))
        odd = np.flatnonzero(expected != found)
        if len(odd):
            first = at + int(odd[0]) if first < 0 else first
            different += len(odd)
            values = to_floats(found[odd], made.entry.dtype)
            with np.errstate(invalid="ignore", over="ignore"):
                apart = max(apart, largest_size(plain[odd] - values))
        at += len(expected)
    if not different or (not exact and apart <= _ROUNDING[made.entry.dtype] * largest):
        return None
    place = [int(i) for i in np.unravel_index(first, made.entry.shape)]
    return f"{different} of {stored.size} elements differ, the first at {place}"


def _form(entry: TensorEntry) -> str:
    return f"{entry.dtype} {list(entry.shape)}"
