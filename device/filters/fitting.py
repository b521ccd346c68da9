"""From inputs and a model's results to a filter, and from a filter to a better one (torch)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from triparty.common.errors import DatasetError, SettingsError
from triparty.common.nets.blocks import Blocks, drawn_blocks, first_half
from triparty.common.nets.calibration import Calibration, check_target
from triparty.common.nets.design import Design, FilterKind
from triparty.common.nets.inputs import InputSpec, Modality, detect
from triparty.common.nets.samples import Inputs, Samples, check_samples
from triparty.common.nets.words import VOCABULARY
from triparty.device.filters.artifact import FilterArtifact, FilterTask, TrainingFacts
from triparty.device.filters.cache import CacheSettings
from triparty.device.filters.evaluation import Labels, best_rate, calibrated_tasks
from triparty.device.filters.measures import Measure, label_of
from triparty.device.filters.session import Session

if TYPE_CHECKING:
    from triparty.common.nets.training import Course, Epoch, Trained

Rows = NDArray[np.int64]
_TORCH: Final = "fitting a filter needs torch and onnx: pip install 'triparty[train]'"
LEAST_VALIDATION: Final = 30  # fewer cannot show an accuracy of 90 % with a confidence of 95 %


@dataclass(frozen=True)
class Recipe:
    """What a filter is made with, its data aside.

    Attributes:
        kind: `skip` or `reuse`.
        target_accuracy: that filtering keeps.
        confidence: with which it does.
        calibration_share: of the samples, for the threshold; nothing is learnt from them.
        sizes: of `Design` that differ from the published ones, by name.
        reuse: how a cache decides.
    """

    kind: FilterKind = "skip"
    target_accuracy: float = 0.9
    confidence: float = 0.95
    calibration_share: float = 0.25
    sizes: Mapping[str, Any] = field(default_factory=dict)
    reuse: CacheSettings = field(default_factory=CacheSettings)

    def __post_init__(self) -> None:
        """Refuses what cannot be kept.

        Raises:
            SettingsError: a share that is none, or a size that networks do not have.
        """
        check_target(self.target_accuracy, self.confidence)
        if not 0.0 < self.calibration_share < 1.0:
            raise SettingsError(
                f"calibration share {self.calibration_share}: expected above 0 and below 1"
            )
        known = set(Design.__dataclass_fields__) - {"kind", "inputs", "tasks"}
        if unknown := set(self.sizes) - known:
            raise SettingsError(
                f"size {min(unknown)!r:.40}: expected one of {', '.join(sorted(known))}"
            )


@dataclass(frozen=True)
class Updated:
    """What an update did.

    Attributes:
        is_taken: whether the new weights replace the old ones.
        before: filter rate at the target on the validation inputs, with the old weights.
        after: with the new ones.
        reason: for what was decided.
    """

    is_taken: bool
    before: float
    after: float
    reason: str


def specifications(inputs: Inputs, modalities: Mapping[str, Modality]) -> tuple[InputSpec, ...]:
    """What the inputs are, told from shapes and types where no modality is named.

    Raises:
        DatasetError: inputs of no known modality.
        SettingsError: a modality of an input that is not there, or that it cannot be.
    """
    if unknown := set(modalities) - set(inputs.columns):
        raise SettingsError(
            f"modality of '{min(unknown)}': the inputs are {', '.join(inputs.columns)}"
        )
    found = [
        detect(column, name=name, modality=modalities.get(name))
        for name, column in inputs.columns.items()
    ]
    return tuple(
        replace(one, vocabulary=max(one.vocabulary, VOCABULARY)) if one.vocabulary else one
        for one in found
    )


def labels_of(
    results: Mapping[str, Any], measures: Mapping[str, Measure], kind: FilterKind
) -> Labels:
    """(n, tasks) what is learnt of results, sequences by task, in the order of the measures.

    Raises:
        DatasetError: no results of a task, lengths that differ, or a result that its measure
            cannot judge.
    """
    if set(results) != set(measures):
        raise DatasetError(
            f"expected results of {', '.join(measures)}, got {', '.join(results) or 'none'}"
        )
    columns = []
    for task, measure in measures.items():
        if kind == "skip":
            columns.append(measure.needed(results[task]).astype(np.int64))
        else:
            columns.append(_numbers(results[task]))
    lengths = {len(column) for column in columns}
    if len(lengths) > 1:
        raise DatasetError(f"tasks have different numbers of results: {sorted(lengths)}")
    return np.stack(columns, axis=1)


def fit(
    inputs: Inputs,
    labels: Labels,
    measures: Mapping[str, Measure],
    recipe: Recipe,
    *,
    modalities: Mapping[str, Modality],
    course: Course | None,
    blocks: Blocks | None = None,
    on_epoch: Callable[[Epoch], None] = lambda _: None,
) -> FilterArtifact:
    """Trains and calibrates a filter.

    Args:
        inputs: of the model.
        labels: of its results, as `labels_of` makes them.
        measures: of redundancy, by task.
        recipe: what kind of filter.
        modalities: of inputs, where shapes and types do not tell.
        course: of the training; None: the published one.
        blocks: (n,) numbers of blocks that are independent of each other; None: inputs are.
        on_epoch: called after each pass.

    Raises:
        DatasetError: data that nothing can be learnt from.
        SettingsError: torch or onnx is not installed.
    """
    training = training_module()
    course = course or training.Course()
    design = Design(
        recipe.kind,
        specifications(inputs, modalities),
        len(measures),
        **recipe.sizes,
    )
    samples = check_samples(Samples(inputs, labels, blocks), design)
    learned, kept = parted(samples, recipe.calibration_share, course.seed)
    trained = training.train(design, learned, course, on_epoch=on_epoch)
    unknown = Calibration(None, recipe.target_accuracy, recipe.confidence, 0.0, 1.0, 0)
    artifact = FilterArtifact(
        design,
        training_file(trained),
        tuple(FilterTask(name, measure, unknown) for name, measure in measures.items()),
        recipe.reuse,
        TrainingFacts(trained.samples, trained.epochs, course.seed, trained.loss),
    )
    return recalibrated(
        artifact, kept, recipe.target_accuracy, recipe.confidence, apart=learned.inputs
    )


def recalibrated(
    artifact: FilterArtifact,
    kept: Samples,
    target_accuracy: float,
    confidence: float,
    *,
    apart: Inputs | None = None,
) -> FilterArtifact:
    """A filter with thresholds that keep a target on samples that nothing was learnt from.

    Args:
        artifact: of the filter.
        kept: the samples.
        target_accuracy: to keep.
        confidence: with which.
        apart: other inputs, from which a reuse filter takes the distances to try; None takes
            the first half of the samples for it, and calibrates on the second.
    """
    session = Session(artifact.network, artifact.design)
    if apart is None and artifact.design.kind == "reuse":
        first, second = in_halves(kept)
        if len(first):  # else too few to show anything, wherever distances are from
            apart, kept = first.inputs, second
    outputs = session.run(kept.inputs)
    tasks = calibrated_tasks(
        artifact,
        outputs,
        kept.labels,
        blocks=kept.blocks,
        apart=outputs if apart is None else session.run(apart),
        target_accuracy=target_accuracy,
        confidence=confidence,
    )
    return replace(artifact, tasks=tasks)


def update(
    artifact: FilterArtifact,
    samples: Samples,
    validation: Samples,
    course: Course | None,
) -> tuple[Updated, FilterArtifact]:
    """Trains a filter on; new weights that are worse on the validation samples are kept out.

    Half of the validation samples decide between old and new weights, the other half
    calibrates the new ones, so that their threshold is not chosen on what chose them.

    Args:
        artifact: of the filter.
        samples: to learn from.
        validation: samples of what comes, drawn without regard to what the filter says.
        course: of the training; None: a short one.

    Returns:
        What happened, and the filter to go on with.

    Raises:
        DatasetError: data that nothing can be learnt from, or too few to decide by.
        SettingsError: torch or onnx is not installed.
    """
    training = training_module()
    from triparty.common.nets.export import weights_of

    if len(validation) < 2 * LEAST_VALIDATION:
        raise DatasetError(
            f"{len(validation)} validation samples: expected at least {2 * LEAST_VALIDATION}"
        )
    course = course or training.Course(epochs=5, patience=5)
    validation = checked_validation(validation, artifact.design)
    deciding, calibrating = in_halves(validation)
    trained = training.train(
        artifact.design, samples, course, start=weights_of(artifact.network)
    )
    target = artifact.tasks[0].calibration
    facts = TrainingFacts(trained.samples, trained.epochs, course.seed, trained.loss)
    candidate = recalibrated(
        replace(artifact, network=training_file(trained), training=facts),
        calibrating,
        target.target_accuracy,
        target.confidence,
        apart=samples.inputs,
    )
    before, after = (rate_of(one, deciding) for one in (artifact, candidate))
    if after < before:
        return Updated(False, before, after, "the new weights filter less"), artifact
    if any(task.calibration.threshold is None for task in candidate.tasks):
        reason = "no threshold of the new weights keeps the target for certain"
        return Updated(False, before, after, reason), artifact
    return Updated(True, before, after, "the new weights filter as much or more"), candidate


def training_file(trained: Trained) -> bytes:
    """The ONNX file of a trained network."""
    from triparty.common.nets.export import to_onnx

    return to_onnx(trained.network)


def checked_validation(validation: Samples, design: Design) -> Samples:
    """Validation may hold one class alone: nothing is learnt from it."""
    from triparty.common.nets.samples import check_inputs

    inputs = check_inputs(validation.inputs, design.inputs)
    if len(validation.labels) != len(inputs):
        raise DatasetError(
            f"{len(inputs)} inputs have {len(validation.labels)} labels: expected as many"
        )
    return Samples(inputs, validation.labels, validation.blocks)


def rate_of(artifact: FilterArtifact, deciding: Samples) -> float:
    """The filter rate of the best thresholds for these very samples."""
    session = Session(artifact.network, artifact.design)
    return best_rate(artifact, session.run(deciding.inputs), deciding.labels)


def parted(samples: Samples, share: float, seed: int) -> tuple[Samples, Samples]:
    """Samples to learn from, and a share of them drawn at random, in their order.

    Of samples in blocks, a share of the blocks, so that what is kept back is not a moment away
    from what is learnt.
    """
    if samples.blocks is not None:
        is_kept = drawn_blocks(samples.blocks, share, seed)
    else:
        count = max(1, round(share * len(samples)))
        drawn = np.random.default_rng(seed).permutation(len(samples))[:count]
        is_kept = np.isin(np.arange(len(samples)), drawn)
    return samples.part(np.flatnonzero(~is_kept)), samples.part(np.flatnonzero(is_kept))


def in_halves(samples: Samples) -> tuple[Samples, Samples]:
    """The first half of the samples, or of their blocks, and the others."""
    is_first = first_half(samples.blocks, len(samples))
    return samples.part(np.flatnonzero(is_first)), samples.part(np.flatnonzero(~is_first))


def _numbers(results: Sequence[Any]) -> Labels:
    """Equal numbers for results with equal labels."""
    known: dict[Any, int] = {}
    numbers = []
    for row, result in enumerate(results):
        try:
            numbers.append(known.setdefault(label_of(result), len(known)))
        except TypeError as error:
            raise DatasetError(f"row {row}: a result without a label: {error}") from error
    return np.array(numbers, np.int64)


def training_module() -> Any:
    """The module of the training, if all is there that training and writing a filter need."""
    try:
        import onnx  # noqa: F401 - its absence is to show before the training, not after

        from triparty.common.nets import training
    except ImportError as error:
        raise SettingsError(_TORCH) from error
    return training


def can_train() -> bool:
    """Whether what fitting needs is installed here."""
    return all(find_spec(name) is not None for name in ("torch", "onnx"))
