"""Whether a filter that somebody else trained takes the place of the one in use.

It is judged on samples that it has never seen and that never left the device, beside the one
in use: half of them decide between the two, the other half sets the new one's thresholds, so
that no threshold is chosen on what chose it. Nothing that its maker says of it is believed.
"""

from __future__ import annotations

from dataclasses import replace

from triparty.common.errors import DatasetError, SettingsError
from triparty.common.nets.samples import Samples
from triparty.device.filters.artifact import FilterArtifact
from triparty.device.filters.fitting import (
    LEAST_VALIDATION,
    Updated,
    in_halves,
    rate_of,
    recalibrated,
)


def calibrated_on(candidate: FilterArtifact, kept: Samples) -> FilterArtifact:
    """A filter with thresholds that keep its tasks' targets.

    Args:
        candidate: a filter.
        kept: samples that it has not seen, with inputs as the device has them.
    """
    target = candidate.tasks[0].calibration
    prepared = Samples(candidate.prepared(kept.inputs), kept.labels, kept.blocks)
    return recalibrated(candidate, prepared, target.target_accuracy, target.confidence)


def adopted(
    current: FilterArtifact, candidate: FilterArtifact, kept: Samples
) -> tuple[Updated, FilterArtifact]:
    """The better one of two filters, with thresholds of its own.

    Args:
        current: in use.
        candidate: of the same kind, inputs and tasks.
        kept: samples that the candidate has not seen, with inputs as the device has them.

    Returns:
        What was decided, and the filter to go on with.

    Raises:
        DatasetError: too few samples to decide by.
        SettingsError: a filter of something else.
    """
    _check_same(current, candidate)
    if len(kept) < 2 * LEAST_VALIDATION:
        raise DatasetError(
            f"{len(kept)} samples kept back: expected at least {2 * LEAST_VALIDATION} to "
            "decide between two filters"
        )
    deciding, calibrating = in_halves(kept)
    if not len(deciding):
        raise DatasetError("all samples kept back are one block: expected at least 2 blocks")
    tasks = tuple(
        replace(task, calibration=old.calibration)
        for task, old in zip(candidate.tasks, current.tasks, strict=True)
    )
    new = calibrated_on(replace(candidate, tasks=tasks), calibrating)
    before, after = (
        rate_of(one, Samples(one.prepared(deciding.inputs), deciding.labels))
        for one in (current, new)
    )
    if after < before:
        return Updated(False, before, after, "the new filter filters less"), current
    if any(task.calibration.threshold is None for task in new.tasks):
        reason = "no threshold of the new filter keeps the target for certain"
        return Updated(False, before, after, reason), current
    return Updated(True, before, after, "the new filter filters as much or more"), new


def _check_same(current: FilterArtifact, candidate: FilterArtifact) -> None:
    def subject(artifact: FilterArtifact) -> tuple[object, ...]:
        specs = [(one.name, one.modality, one.shape) for one in artifact.inputs]
        tasks = [
            (task.name, task.measure.name, task.measure.parameters) for task in artifact.tasks
        ]
        return artifact.design.kind, specs, tasks

    if subject(current) != subject(candidate):
        raise SettingsError(
            "the filter in use is of another kind, other inputs, tasks or measures than the "
            "new one: name another folder"
        )
