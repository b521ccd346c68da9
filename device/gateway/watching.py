"""Builds a gateway from its settings."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from triparty.common.errors import ArtifactError, CheckpointError, SettingsError
from triparty.device.gate.artifact import Gate
from triparty.device.gate.policies import POLICIES, make
from triparty.device.gate.traces import Task
from triparty.device.gateway.clock import Clock
from triparty.device.gateway.coco import COCO
from triparty.device.gateway.filtering import Filters
from triparty.device.gateway.gateway import Gateway
from triparty.device.gateway.models import find_model, make_stage
from triparty.device.gateway.outputs import check_outputs, make_outputs
from triparty.device.gateway.planning import LinkStage, PlannedStage, Planner
from triparty.device.gateway.plans import make_planner
from triparty.device.gateway.results import Sink
from triparty.device.gateway.rounds import leftover_of
from triparty.device.gateway.settings import ModelSettings, TaskSettings, WatchSettings
from triparty.device.gateway.stages import Stage

if TYPE_CHECKING:
    from triparty.device.gate.policy import Policy
    from triparty.device.gate.predictor import Predictor


def make_gateway(
    settings: WatchSettings, *, clock: Clock | None = None, lines: Sink | None = None
) -> Gateway:
    """A gateway that runs as soon as it is told to.

    Args:
        settings: of everything.
        clock: whose time rounds follow.
        lines: takes documents beside what the settings name.

    Raises:
        SettingsError: something that the settings name is not there or cannot be.
        StateError: a database of another kind.
    """
    tasks = check_settings(settings)
    gate = settings.gate
    policy = _policy(settings)
    planner = make_planner(settings, tasks)
    stages = _stages(settings, planner)
    return Gateway(
        settings,
        policy=policy,
        leftover=leftover_of(gate.policy, gate.leftover),
        stages=stages,
        tasks=tasks,
        labels={model.name: labels(model) for model in settings.models},
        outputs=make_outputs(settings, lines),
        planner=planner,
        clock=clock,
    )


def check_settings(settings: WatchSettings) -> list[Task]:
    """The tasks of settings that name nothing unknown; opens no stream and loads no model.

    Raises:
        SettingsError: a policy, class or address that cannot be.
    """
    policy = settings.gate.policy
    if policy not in POLICIES or policy == "oracle":
        known = ", ".join(name for name in POLICIES if name != "oracle")
        raise SettingsError(f"policy '{policy}': expected one of {known}")
    for camera in settings.cameras:
        camera.address(settings.folder)
    check_outputs(settings)
    return [_task(task, settings) for task in settings.tasks]


def open_settings(settings: WatchSettings) -> None:
    """Opens what settings name, as a start would, and lets it go: filters, models, gate, plan.

    No stream is opened, nothing is written, and no code of the user's runs: of a Python model
    only its module is looked for.

    Raises:
        SettingsError: something that is not there, is broken, or does not fit.
    """
    tasks = check_settings(settings)
    Filters(settings, tasks)
    make_planner(settings, tasks)
    _policy(settings)
    for model in settings.models:
        find_model(model, settings.folder)


def _stages(settings: WatchSettings, planner: Planner | None) -> list[Stage]:
    """Of all models; those of a plan are loaded when they are chosen."""
    if planner is None:
        return [make_stage(model, settings.folder) for model in settings.models]
    stages: list[Stage] = []
    for model in settings.models:
        make = partial(make_stage, model, settings.folder)
        if model.name in planner.forms:
            planned = PlannedStage(model.name, make, planner)
            planned.load()
            stages.append(planned)
        else:
            stages.append(make())
    return [*stages, LinkStage(planner)]


def _policy(settings: WatchSettings) -> Policy:
    gate = settings.gate
    predictor = _predictor(settings.folder, gate.artifact)
    return make(gate.policy, predictor=predictor, max_staleness=gate.max_staleness_s)


def _predictor(folder: Path, artifact: Path | None) -> Predictor | None:
    if artifact is None:
        return None
    try:
        return Gate.open(folder / artifact).predictor
    except (ArtifactError, CheckpointError) as error:
        raise SettingsError(
            f"gate: {folder / artifact} cannot be used ({error.message}): train it again"
        ) from error


def _task(task: TaskSettings, settings: WatchSettings) -> Task:
    model = next(each for each in settings.models if each.name == task.model)
    classes = tuple(_class(name, model, task) for name in task.classes)
    return Task(task.name, task.model, task.measure, classes, task.step)


def labels(model: ModelSettings) -> tuple[str, ...]:
    """The names of a model's classes, in order."""
    return COCO if model.labels == "coco" else tuple(model.labels)


def _class(name: str | int, model: ModelSettings, task: TaskSettings) -> int:
    if isinstance(name, int):
        return name
    known = labels(model)
    if name not in known:
        few = ", ".join(known[:8]) + (", ..." if len(known) > 8 else "")
        raise SettingsError(
            f"task '{task.name}': model '{model.name}' has no class '{name}'; "
            f"it has {few or 'no labels: give them, or numbers'}"
        )
    return known.index(name)
