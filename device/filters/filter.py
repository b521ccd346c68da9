"""`Filter`: the public interface of input filters."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from triparty.common.errors import DatasetError, SettingsError
from triparty.common.nets.blocks import blocks_of
from triparty.common.nets.inputs import Modality
from triparty.common.nets.samples import Inputs, Samples, check_inputs, gather, one_input
from triparty.device.filters.adoption import adopted
from triparty.device.filters.artifact import FilterArtifact
from triparty.device.filters.evaluation import Evaluation, Labels, evaluate
from triparty.device.filters.fitting import (
    Recipe,
    Updated,
    fit,
    labels_of,
    recalibrated,
    update,
)
from triparty.device.filters.measures import Measure, as_given, label_changed
from triparty.device.filters.session import Output, Session

if TYPE_CHECKING:
    from triparty.common.nets.training import Course, Epoch
    from triparty.device.filters.filtered import Filtered

Measures = Measure | Mapping[str, Measure]
Results = Sequence[Any] | NDArray[Any] | Mapping[str, Sequence[Any]]
ONE_TASK: Final = "task"


@dataclass(frozen=True)
class Core:
    """A filter's weights and thresholds at one moment.

    Attributes:
        artifact: all that the filter is.
        session: of its network.
    """

    artifact: FilterArtifact
    session: Session


class Filter:
    """Tells which inputs need the model, or which have the result of an earlier one.

    Safe for several threads: each call works with the weights that it began with.

    Args:
        artifact: all that it is.
    """

    def __init__(self, artifact: FilterArtifact) -> None:
        """Loads the network."""
        self._core = Core(artifact, Session(artifact.network, artifact.design))
        self._changing = threading.Lock()

    @classmethod
    def fit(
        cls,
        inputs: Any,
        results: Results,
        measures: Measures | None = None,
        *,
        recipe: Recipe | None = None,
        modality: Modality | Mapping[str, Modality] | None = None,
        course: Course | None = None,
        blocks: Any | None = None,
        on_epoch: Callable[[Epoch], None] = lambda _: None,
    ) -> Self:
        """Trains a filter on what a model said; needs torch.

        Args:
            inputs: arrays, lists of arrays or of texts, or several of these by name.
            results: of the model, one an input; or by task.
            measures: what makes a result redundant, of any task; or by task. None: for `skip`,
                results say themselves whether they were needed; for `reuse`, results with the
                same label mean the same, and no other measure is possible.
            recipe: kind, target accuracy, sizes.
            modality: where shapes and types do not tell; or by name.
            course: of the training; None: the published one.
            blocks: of inputs that depend on each other, such as frames of a minute: one value
                an input, equal ones are a block; whole blocks are kept back to calibrate, and
                bounded as one sample each. None: inputs are independent.
            on_epoch: called after each pass.

        Raises:
            DatasetError: data that nothing can be learnt from.
            SettingsError: torch is not installed, or a setting that cannot be.
        """
        recipe = recipe or Recipe()
        by_task, by_name = tasks_of(results, measures, recipe)
        gathered = gather(inputs)
        labels = labels_of(by_task, by_name, recipe.kind)
        modalities = modalities_of(modality, list(gathered.columns))
        return cls(
            fit(
                gathered,
                labels,
                by_name,
                recipe,
                modalities=modalities,
                course=course,
                blocks=None if blocks is None else blocks_of(blocks),
                on_epoch=on_epoch,
            )
        )

    @classmethod
    def load(cls, folder: Path | str, *, measures: Mapping[str, Measure] | None = None) -> Self:
        """Reads a filter, for use with ONNX Runtime alone.

        Args:
            folder: of the filter.
            measures: by task, where its maker used a function of their own; without it the
                filter skips, but cannot tell whether it was right.

        Raises:
            ArtifactError: no filter, or one that cannot be.
            SettingsError: a measure other than the filter's.
        """
        artifact = FilterArtifact.open(Path(folder))
        given = dict(measures or {})
        tasks = []
        for task in artifact.tasks:
            measure = given.pop(task.name, task.measure)
            if measure.name != task.measure.name:
                raise SettingsError(
                    f"task '{task.name}' has the measure '{task.measure.name}', not "
                    f"'{measure.name}'"
                )
            tasks.append(replace(task, measure=measure))
        if given:
            raise SettingsError(f"the filter has no task '{min(given)}'")
        return cls(replace(artifact, tasks=tuple(tasks)))

    def save(self, folder: Path | str) -> None:
        """Writes the filter, in the place of one that is there.

        Raises:
            SettingsError: something else is there.
        """
        self._core.artifact.save(Path(folder))

    @property
    def core(self) -> Core:
        """Weights and thresholds as they are now."""
        return self._core

    @property
    def artifact(self) -> FilterArtifact:
        """All that the filter is now."""
        return self._core.artifact

    def outputs(self, inputs: Any) -> Output:
        """Logits (n, tasks) of a skip filter, keys (n, tasks, width) of a reuse filter.

        Raises:
            DatasetError: inputs that are none of the filter's.
        """
        core = self._core
        return core.session.run(_taken(core, inputs))

    def needed(self, inputs: Any) -> NDArray[np.bool_]:
        """(n, tasks) for which inputs a skip filter would run the model.

        Raises:
            DatasetError: inputs that are none of the filter's.
            SettingsError: a reuse filter, which needs its cache to tell: see `apply`.
        """
        core = self._core
        if core.artifact.design.kind != "skip":
            raise SettingsError("a reuse filter decides with a cache: use apply or in_front_of")
        logits = core.session.run(_taken(core, inputs))
        thresholds = [task.calibration.threshold for task in core.artifact.tasks]
        return logits > np.array([-np.inf if one is None else one for one in thresholds])

    def apply(
        self, inputs: Iterable[Any], model: Callable[[Any], Any] | Mapping[str, Any]
    ) -> Iterator[Any]:
        """Yields a result for each input of a stream, from the model or without it.

        Args:
            inputs: one at a time, each as the model takes it.
            model: what is filtered; or by task.
        """
        filtered = self.in_front_of(model, audit_share=0.0)
        return (filtered(one) for one in inputs)

    def in_front_of(
        self, model: Callable[[Any], Any] | Mapping[str, Any], **options: Any
    ) -> Filtered:
        """The model with this filter before it; also a decorator.

        Args:
            model: takes one input; or one model by task.
            options: of `Filtered`.
        """
        from triparty.device.filters.filtered import Filtered

        return Filtered(self, model, **options)

    def evaluate(
        self, inputs: Any, results: Results, *, model: Callable[[Any], object] | None = None
    ) -> Evaluation:
        """Scores the filter on inputs that it was not made from, and times it here.

        Args:
            inputs: as for `fit`.
            results: of the model.
            model: what is filtered, takes one input; None leaves its cost out.

        Raises:
            DatasetError: inputs or results that are none of the filter's.
        """
        core = self._core
        samples = self.samples(inputs, results, core)
        return evaluate(
            core.artifact,
            core.session,
            samples.inputs,
            samples.labels,
            model=model,
            given=inputs,
        )

    def calibrate(
        self,
        inputs: Any,
        results: Results,
        *,
        blocks: Any | None = None,
        target_accuracy: float = 0.9,
        confidence: float = 0.95,
    ) -> None:
        """Chooses thresholds anew: the largest filter rate that keeps an accuracy.

        Args:
            inputs: that nothing was learnt from, drawn without regard to what the filter says.
            results: of the model.
            blocks: of inputs that depend on each other, as for `fit`.
            target_accuracy: agreement with the model to keep.
            confidence: with which.

        Raises:
            DatasetError: inputs or results that are none of the filter's.
        """
        with self._changing:
            samples = self.samples(inputs, results, blocks=blocks)
            artifact = recalibrated(self.artifact, samples, target_accuracy, confidence)
            self._core = Core(artifact, self._core.session)

    def update(
        self,
        inputs: Any,
        results: Results,
        *,
        validation: tuple[Any, Results],
        course: Course | None = None,
    ) -> Updated:
        """Trains on; what is worse than before on the validation inputs is kept out.

        Calls that run meanwhile use the weights that they began with.

        Args:
            inputs: to learn from.
            results: of the model.
            validation: inputs and results drawn without regard to what the filter says.
            course: of the training; None: a short one.

        Raises:
            DatasetError: data that nothing can be learnt from, or too few to decide by.
            SettingsError: torch is not installed.
        """
        with self._changing:
            samples, validating = self.samples(inputs, results), self.samples(*validation)
            done, artifact = update(self.artifact, samples, validating, course)
            if done.is_taken:
                self._core = Core(artifact, Session(artifact.network, artifact.design))
        return done

    def adopt(self, candidate: FilterArtifact, *, validation: tuple[Any, Results]) -> Updated:
        """Takes a filter that somebody else trained, unless it is worse than this one here.

        Calls that run meanwhile use the weights that they began with.

        Args:
            candidate: of the same kind, inputs and tasks; its thresholds are set anew.
            validation: inputs and results that it has not seen, drawn without regard to what
                a filter says.

        Raises:
            DatasetError: too few inputs to decide by, or none of the filter's.
            SettingsError: a filter of something else.
        """
        inputs, results = validation
        gathered = check_inputs(gather(inputs), self.artifact.inputs)
        kept = Samples(gathered, self._labels(results))
        with self._changing:
            done, artifact = adopted(self.artifact, candidate, kept)
            if done.is_taken:
                self._core = Core(artifact, Session(artifact.network, artifact.design))
        return done

    def samples(
        self,
        inputs: Any,
        results: Results,
        core: Core | None = None,
        *,
        blocks: Any | None = None,
    ) -> Samples:
        """Inputs and labels as the network takes them.

        Args:
            inputs: as for `fit`.
            results: of the model.
            core: whose network; None: the one in use now.
            blocks: of inputs that depend on each other, as for `fit`.

        Raises:
            DatasetError: inputs or results that are none of the filter's.
        """
        gathered = _taken(core or self._core, inputs)
        labels = self._labels(results)
        if len(labels) != len(gathered):
            raise DatasetError(
                f"{len(gathered)} inputs have {len(labels)} results: expected as many"
            )
        numbers = None if blocks is None else blocks_of(blocks)
        if numbers is not None and len(numbers) != len(gathered):
            raise DatasetError(
                f"{len(gathered)} inputs have {len(numbers)} blocks: expected as many"
            )
        return Samples(gathered, labels, numbers)

    def single(self, value: Any, core: Core | None = None) -> Inputs:
        """One input as the network takes it.

        Args:
            value: the input.
            core: whose network; None: the one in use now.

        Raises:
            DatasetError: none of the filter's.
        """
        artifact = (core or self._core).artifact
        return artifact.prepared(one_input(value, artifact.inputs))

    def _labels(self, results: Results) -> Labels:
        tasks = self.artifact.tasks
        by_task = results if isinstance(results, Mapping) else {tasks[0].name: results}
        measures = {task.name: task.measure for task in tasks}
        return labels_of(by_task, measures, self.artifact.design.kind)


def _taken(core: Core, inputs: Any) -> Inputs:
    """Inputs as the network takes them."""
    artifact = core.artifact
    return artifact.prepared(check_inputs(gather(inputs), artifact.inputs))


def tasks_of(
    results: Results, measures: Measures | None, recipe: Recipe
) -> tuple[Mapping[str, Any], dict[str, Measure]]:
    """Results and measures by task.

    Raises:
        SettingsError: a measure for a filter that has none.
    """
    by_task = results if isinstance(results, Mapping) else {ONE_TASK: results}
    return by_task, _measures(measures, recipe, list(by_task))


def _measures(
    measures: Measures | None, recipe: Recipe, tasks: list[str]
) -> dict[str, Measure]:
    if recipe.kind == "reuse":
        if measures is not None:
            raise SettingsError("a reuse filter has no measure: results with a label are equal")
        return {task: label_changed() for task in tasks}
    if measures is None:
        return {task: as_given() for task in tasks}
    return dict.fromkeys(tasks, measures) if isinstance(measures, Measure) else dict(measures)


def modalities_of(
    modality: Modality | Mapping[str, Modality] | None, names: list[str]
) -> dict[str, Modality]:
    """Modalities by name of the input, where any were named."""
    if modality is None:
        return {}
    return dict(modality) if isinstance(modality, Mapping) else {names[0]: modality}
