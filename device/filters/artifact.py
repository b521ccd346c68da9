"""A filter as a folder: `filter.json` says what it is, `filter.onnx` is its network.

A filter that was trained on features has `stage.npz` beside them (`first_stage.py`).

`filter.json` is a canonical document (`common/documents.py`): the network's design, the tasks
with their measures and calibrated thresholds, how results are reused, and how it was trained.
Fractions are decimal text. Whoever trained a filter uses it as it is; others get it signed
(kind `filter`). Its weights and vocabulary tell of the inputs it was trained on, so its files
are for their owner alone.
"""

from __future__ import annotations

import secrets
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from triparty.common.documents import Members, check_name
from triparty.common.errors import FileTypeError, ManifestError, SettingsError
from triparty.common.files import make_private_folder, replace_folder, write_private
from triparty.common.filters import (
    FILTER_FILE,
    LIMIT_BYTES,
    NETWORK_FILE,
    filter_document,
    read_filter_document,
)
from triparty.common.nets.calibration import Calibration
from triparty.common.nets.design import Design
from triparty.common.nets.documents import decimal, read_design
from triparty.common.nets.inputs import InputSpec
from triparty.common.nets.samples import Inputs
from triparty.device.filters.cache import CacheSettings
from triparty.device.filters.first_stage import FirstStage
from triparty.device.filters.measures import Measure, restored

_CALIBRATION: Final = (
    "threshold",
    "target_accuracy",
    "confidence",
    "filter_rate",
    "accuracy",
    "samples",
)


@dataclass(frozen=True)
class FilterTask:
    """One output of a filter.

    Attributes:
        name: of the task.
        measure: of redundancy; for `reuse` what results mean is their label.
        calibration: of its threshold; for `reuse` of the largest distance.
    """

    name: str
    measure: Measure
    calibration: Calibration

    def __post_init__(self) -> None:
        """Refuses what is no name.

        Raises:
            ManifestError: not a name.
        """
        check_name(self.name, what="task")


@dataclass(frozen=True)
class TrainingFacts:
    """How a filter came about.

    Attributes:
        samples: learnt from.
        epochs: passes.
        seed: of weights and order.
        loss: on samples held out.
    """

    samples: int
    epochs: int
    seed: int
    loss: float


@dataclass(frozen=True)
class FilterArtifact:
    """All that a filter is.

    Attributes:
        design: of the network.
        network: the ONNX file.
        tasks: one an output.
        reuse: how results are reused; of no use to `skip`.
        training: how it came about.
        stage: what inputs go through first; None: the network takes them as they are.
    """

    design: Design
    network: bytes
    tasks: tuple[FilterTask, ...]
    reuse: CacheSettings
    training: TrainingFacts
    stage: FirstStage | None = None

    @property
    def inputs(self) -> tuple[InputSpec, ...]:
        """What the filter takes: the network's inputs, or those of its first stage."""
        return self.design.inputs if self.stage is None else self.stage.specs

    def prepared(self, inputs: Inputs) -> Inputs:
        """Inputs as the network takes them.

        Args:
            inputs: as `check_inputs` returns them for `inputs`.
        """
        return inputs if self.stage is None else self.stage.features(inputs)

    def __post_init__(self) -> None:
        """Refuses a filter whose parts do not fit.

        Raises:
            SettingsError: not one task an output, or a name twice.
        """
        names = {task.name for task in self.tasks}
        if len(self.tasks) != self.design.tasks or len(names) < len(self.tasks):
            raise SettingsError(
                f"a filter with {self.design.tasks} outputs needs as many tasks with different "
                f"names, got {', '.join(task.name for task in self.tasks) or 'none'}"
            )
        if self.stage is not None and self.stage.feature_specs != self.design.inputs:
            raise SettingsError("a filter's first stage makes other inputs than it takes")

    def save(self, folder: Path) -> None:
        """Writes the filter, in the place of one that is there; for its owner alone.

        Raises:
            SettingsError: something else is there.
        """
        if folder.exists() and not (folder / FILTER_FILE).is_file():
            raise SettingsError(f"{folder} exists and is no filter: name another folder")
        folder.parent.mkdir(parents=True, exist_ok=True)
        making = folder.with_name(f".{folder.name}.{secrets.token_hex(8)}.part")
        try:
            make_private_folder(making)
            write_private(making / NETWORK_FILE, self.network)
            write_private(making / FILTER_FILE, self._document())
            if self.stage is not None:
                self.stage.save(making)
            replace_folder(making, folder)
        finally:
            shutil.rmtree(making, ignore_errors=True)

    def _document(self) -> bytes:
        design, reuse, facts = self.design, self.reuse, self.training
        return filter_document(
            design,
            tasks=[
                {
                    "name": task.name,
                    "measure": task.measure.name,
                    "parameters": list(task.measure.parameters),
                    "calibration": _calibration_document(task.calibration),
                }
                for task in self.tasks
            ],
            training={
                "samples": facts.samples,
                "epochs": facts.epochs,
                "seed": facts.seed,
                "loss": decimal(facts.loss),
            },
            reuse={
                "size": reuse.size,
                "neighbours": reuse.neighbours,
                "least_theta": decimal(reuse.least_theta),
                "first": reuse.first,
            },
        )

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Reads a filter; everything in it is checked, as if somebody else had made it.

        Raises:
            ManifestError: `filter.json` is absent, not canonical, or says what cannot be.
            FormatVersionError: made by a newer triparty.
            FileTypeError: `filter.onnx` or `stage.npz` cannot be read.
        """
        members = read_filter_document(folder)
        try:
            tasks = tuple(_task(item) for item in members.items("tasks"))
            return cls(
                read_design(members.mapping("design"), len(tasks)),
                _read_network(folder / NETWORK_FILE),
                tasks,
                _reuse(members),
                _facts(members),
                FirstStage.open(folder),
            )
        except SettingsError as error:
            raise ManifestError(f"{folder / FILTER_FILE}: {error}") from error


def _calibration_document(calibration: Calibration) -> dict[str, object]:
    threshold = calibration.threshold
    blocks = {"blocks": calibration.blocks} if calibration.blocks else {}
    return blocks | {
        "threshold": None if threshold is None else decimal(threshold),
        "target_accuracy": decimal(calibration.target_accuracy),
        "confidence": decimal(calibration.confidence),
        "filter_rate": decimal(calibration.filter_rate),
        "accuracy": decimal(calibration.accuracy),
        "samples": calibration.samples,
    }


def _task(item: object) -> FilterTask:
    names = ("name", "measure", "parameters", "calibration")
    task = Members(item, where="filter: a task", names=names)
    parameters = []
    for one in task.items("parameters"):
        if not isinstance(one, str):
            raise ManifestError(f"filter: a parameter must be text, got {type(one).__name__}")
        parameters.append(one)
    measure = restored(check_name(task.text("measure"), what="measure"), tuple(parameters))
    return FilterTask(task.text("name"), measure, _calibration(task.mapping("calibration")))


def _calibration(item: object) -> Calibration:
    found = Members(
        item, where="filter: a calibration", names=_CALIBRATION, optional=("blocks",)
    )
    has_none = found.optional_text("threshold") is None
    return Calibration(
        threshold=None if has_none else found.fraction("threshold"),
        samples=found.integer("samples"),
        blocks=found.integer("blocks") if found.has("blocks") else 0,
        **{
            name: found.fraction(name)
            for name in ("target_accuracy", "confidence", "filter_rate", "accuracy")
        },
    )


def _reuse(members: Members) -> CacheSettings:
    names = ("size", "neighbours", "least_theta", "first")
    reuse = Members(members.mapping("reuse"), where="filter: 'reuse'", names=names)
    return CacheSettings(
        size=reuse.integer("size"),
        neighbours=reuse.integer("neighbours"),
        least_theta=reuse.fraction("least_theta"),
        first=reuse.integer("first"),
    )


def _facts(members: Members) -> TrainingFacts:
    names = ("samples", "epochs", "seed", "loss")
    facts = Members(members.mapping("training"), where="filter: 'training'", names=names)
    return TrainingFacts(
        facts.integer("samples"),
        facts.integer("epochs"),
        facts.integer("seed"),
        facts.fraction("loss"),
    )


def _read_network(path: Path) -> bytes:
    try:
        with path.open("rb") as stream:
            data = stream.read(LIMIT_BYTES + 1)
    except OSError as error:
        raise FileTypeError(f"cannot read {path}: {error.strerror}") from error
    if len(data) > LIMIT_BYTES:
        raise FileTypeError(f"{path} has more than {LIMIT_BYTES} bytes")
    return data
