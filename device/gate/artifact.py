"""A gate as a folder: `gate.json` says what it is, `gate.safetensors` holds its weights.

`gate.json` is a canonical document (`common/documents.py`): the network's name, its feature
groups and how they are made, the tasks in the order of the heads with their thresholds, and how
it was trained. Canonical documents hold integers alone, so fractions are decimal text. Whoever
trained a gate uses it as it is; others get it signed (kind `gate`). What it tells of the
cameras that it was trained on is confidential, so its files are for their owner alone.
"""

from __future__ import annotations

import math
import secrets
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from triparty.common.documents import Members, check_name, write_document
from triparty.common.errors import ManifestError, SettingsError
from triparty.common.files import make_private_folder, replace_folder, write_private
from triparty.common.gates import (
    GATE_DOCUMENT,
    GATE_FILE,
    LIMIT_BYTES,
    WEIGHTS_FILE,
    read_gate_document,
)
from triparty.common.tensorfile import float_bytes, read_floats
from triparty.device.gate.features import FeatureChoice
from triparty.device.gate.predictor import Network, Predictor

NORMALISATION: Final = "running-median"
_FRACTION_DIGITS = 40


@dataclass(frozen=True)
class GateTask:
    """A head of a gate.

    Attributes:
        name: of the task, as traces call it.
        threshold: probability from which a packet counts as necessary, where a yes or no is
            asked for.
    """

    name: str
    threshold: float = 0.5

    def __post_init__(self) -> None:
        """Refuses what is no head.

        Raises:
            ManifestError: not a name.
            SettingsError: a threshold that is no probability.
        """
        check_name(self.name, what="task")
        if not 0.0 <= self.threshold <= 1.0:
            raise SettingsError(f"threshold {self.threshold} of '{self.name}': expected 0 to 1")


@dataclass(frozen=True)
class TrainingFacts:
    """How a gate came about.

    Attributes:
        recordings: streams that it was trained on.
        samples: of them.
        epochs: passes.
        gating: `random` or `full`.
        seed: of masks, weights and order.
        loss: binary cross-entropy on the streams held out.
        base_rate: share of necessary samples of each task.
    """

    recordings: int
    samples: int
    epochs: int
    gating: str
    seed: int
    loss: float
    base_rate: tuple[float, ...]


@dataclass(frozen=True)
class Gate:
    """A predictor, what its heads mean, and how it was trained.

    Attributes:
        predictor: network and weights.
        tasks: one a head.
        training: how it came about.
    """

    predictor: Predictor
    tasks: tuple[GateTask, ...]
    training: TrainingFacts

    def __post_init__(self) -> None:
        """Refuses a gate whose parts do not fit.

        Raises:
            SettingsError: not one task a head, a name twice, or facts about other heads.
        """
        heads = self.predictor.network.tasks
        if not len(self.tasks) == len(self.training.base_rate) == heads:
            raise SettingsError(
                f"a gate with {heads} heads needs as many tasks and base rates, got "
                f"{len(self.tasks)} and {len(self.training.base_rate)}"
            )
        if len({task.name for task in self.tasks}) < heads:
            raise SettingsError("two tasks of a gate have one name")

    def save(self, folder: Path) -> None:
        """Writes the gate, in the place of one that is there; for its owner alone.

        Raises:
            SettingsError: something else is there.
        """
        if folder.exists() and not (folder / GATE_FILE).is_file():
            raise SettingsError(f"{folder} exists and is no gate: name another folder")
        folder.parent.mkdir(parents=True, exist_ok=True)
        making = folder.with_name(f".{folder.name}.{secrets.token_hex(8)}.part")
        try:
            make_private_folder(making)
            write_private(making / WEIGHTS_FILE, float_bytes(self.predictor.weights))
            write_private(making / GATE_FILE, self._document())
            replace_folder(making, folder)
        finally:
            shutil.rmtree(making, ignore_errors=True)

    def _document(self) -> bytes:
        network, facts = self.predictor.network, self.training
        choice = network.features
        return write_document(
            GATE_DOCUMENT,
            {
                "network": network.name,
                "features": {
                    "groups": list(choice.groups),
                    "window": choice.window,
                    "estimator": choice.estimator,
                    "horizon": choice.horizon,
                },
                "normalisation": NORMALISATION,
                "tasks": [
                    {"name": task.name, "threshold": repr(float(task.threshold))}
                    for task in self.tasks
                ],
                "training": {
                    "recordings": facts.recordings,
                    "samples": facts.samples,
                    "epochs": facts.epochs,
                    "gating": facts.gating,
                    "seed": facts.seed,
                    "loss": repr(float(facts.loss)),
                    "base_rate": [repr(float(share)) for share in facts.base_rate],
                },
            },
        )

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Reads a gate; everything in it is checked, as if somebody else had made it.

        Raises:
            ManifestError: `gate.json` is absent, not canonical, or says what cannot be.
            FormatVersionError: made by a newer triparty.
            FileTypeError: `gate.safetensors` is no whole file of float32 tensors.
            CheckpointError: its weights are not the network's.
        """
        members = read_gate_document(folder)
        try:
            network = _network(members)
            tasks = tuple(_task(item) for item in members.items("tasks"))
            weights = read_floats(folder / WEIGHTS_FILE, limit_bytes=LIMIT_BYTES)
            return cls(Predictor(network, weights), tasks, _facts(members))
        except SettingsError as error:
            raise ManifestError(f"{folder / GATE_FILE}: {error}") from error


def _network(members: Members) -> Network:
    features = Members(
        members.mapping("features"),
        where="gate: 'features'",
        names=("groups", "window", "estimator", "horizon"),
    )
    if members.text("normalisation") != NORMALISATION:
        raise ManifestError(
            f"gate: 'normalisation' must be {NORMALISATION!r}, "
            f"got {members.text('normalisation')!r:.80}"
        )
    groups = tuple(_text(group, "a feature group") for group in features.items("groups"))
    choice = FeatureChoice(
        groups,
        features.integer("window", minimum=1),
        features.text("estimator"),
        features.integer("horizon", minimum=2),
    )
    return Network(members.text("network"), choice, len(members.items("tasks")))


def _task(item: object) -> GateTask:
    members = Members(item, where="gate: a task", names=("name", "threshold"))
    return GateTask(members.text("name"), _fraction(members.text("threshold")))


def _facts(members: Members) -> TrainingFacts:
    names = ("recordings", "samples", "epochs", "gating", "seed", "loss", "base_rate")
    facts = Members(members.mapping("training"), where="gate: 'training'", names=names)
    shares = facts.items("base_rate")
    return TrainingFacts(
        recordings=facts.integer("recordings"),
        samples=facts.integer("samples"),
        epochs=facts.integer("epochs"),
        gating=facts.text("gating"),
        seed=facts.integer("seed"),
        loss=_fraction(facts.text("loss")),
        base_rate=tuple(_fraction(_text(share, "a base rate")) for share in shares),
    )


def _text(value: object, what: str) -> str:
    if not isinstance(value, str):
        raise ManifestError(f"gate: {what} must be text, got {type(value).__name__}")
    return value


def _fraction(text: str) -> float:
    """The number of a decimal text, as `repr` writes it."""
    try:
        value = float(text) if len(text) <= _FRACTION_DIGITS else math.nan
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or repr(value) != text:
        raise ManifestError(f"gate: expected a decimal number, got {text!r:.50}")
    return value
