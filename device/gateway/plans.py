"""Opens the plan that a configuration names, and its links."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from triparty.common.errors import ArtifactError, CheckpointError, SettingsError
from triparty.common.links.ensemble import Ensemble
from triparty.common.links.folder import is_link, open_links
from triparty.common.links.planning.costs import Budget
from triparty.common.links.planning.folder import PlanFolder, is_plan
from triparty.common.links.planning.reselection import Hysteresis
from triparty.common.links.specs import OutputSpec
from triparty.device.gate.traces import Task
from triparty.device.gateway.coco import COCO
from triparty.device.gateway.library import CloudLibrary
from triparty.device.gateway.planning import LINKS, Choice, Planner
from triparty.device.gateway.predictions import check_task, form_of
from triparty.device.gateway.settings import ModelSettings, PlanSettings, WatchSettings
from triparty.device.links.selecting import Reselection


def make_planner(settings: WatchSettings, tasks: Sequence[Task]) -> Planner | None:
    """What runs models by the plan of a configuration; None if it has none.

    Args:
        settings: of everything.
        tasks: of all models; classes are numbers.

    Raises:
        SettingsError: no plan, broken links, a model that the configuration does not have, or
            a task that cannot be predicted.
    """
    pulled = [model.name for model in settings.models if model.pulled]
    if settings.plan is None:
        if pulled:
            raise SettingsError(f"the model '{pulled[0]}' is pulled with a plan: give [plan]")
        return None
    where = f"plan: {settings.plan.artifact}"
    folder = _folder_of(settings.plan.artifact, settings.folder, "plans")
    library = _library(settings.plan, settings.folder, pulled)
    if not is_plan(folder):
        raise SettingsError(
            f"{where} is no plan: make one with 'triparty developer links plan', or fetch it "
            "with 'triparty device pull'"
        )
    try:
        opened = PlanFolder.open(folder)
        ensembles = _links(settings.plan, settings.folder, tuple(opened.links))
    except (ArtifactError, CheckpointError) as error:
        raise SettingsError(
            f"{where} cannot be used ({error.message}): pull it again"
        ) from error
    models = {model.name: model for model in settings.models}
    if LINKS in models:
        raise SettingsError(f"a model cannot be called '{LINKS}'")
    if missing := [name for name in opened.plan.models if name not in models]:
        raise SettingsError(
            f"{where} names the model '{missing[0]}': add a [[models]] of that name"
        )
    if foreign := [name for name in pulled if name not in opened.plan.models]:
        raise SettingsError(f"{where} does not name the model '{foreign[0]}', which is pulled")
    specs = _specs(ensembles)
    if alone := [name for name in opened.plan.models if name not in specs]:
        raise SettingsError(f"{where}: no link is to or from the model '{alone[0]}'")
    forms = {
        name: form_of(name, specs[name], _labels(models[name])) for name in opened.plan.models
    }
    for task in tasks:
        if task.model in forms and task.model in ensembles:
            check_task(task, forms[task.model])
    held = None if library is None else _held(library.plan)
    active = frozenset(opened.plan.active if held is None else held)
    reselection = _reselection(settings.plan, opened.budget)
    return Planner(
        Choice(
            active,
            opened.plan.expected_accuracy,
            opened.plan.cost if active == frozenset(opened.plan.active) else {},
        ),
        ensembles,
        {name: specs[name] for name in opened.plan.models},
        forms,
        budget=opened.budget if reselection is None else reselection.budget,
        reselection=reselection,
        retry_s=settings.plan.retry_s,
        records=None
        if settings.plan.records is None
        else settings.folder / settings.plan.records,
        library=library,
    )


def _library(
    settings: PlanSettings, folder: Path, pulled: Sequence[str]
) -> CloudLibrary | None:
    """Where the plan's models come from; None if the configuration names files of them all."""
    if not pulled:
        return None
    name = str(settings.artifact)
    if (folder / settings.artifact).exists() or _held(name) is None:
        raise SettingsError(
            f"plan: {name} is no pulled plan, and the model '{pulled[0]}' comes with one: give "
            "its 'file', or fetch the plan with 'triparty device pull'"
        )
    return CloudLibrary(name)


def _held(plan: str) -> tuple[str, ...] | None:
    """The models that a pulled plan runs here, as they were chosen last; None without one."""
    from triparty.device.home import Home
    from triparty.device.settings import DeviceSettings

    plans = Home(DeviceSettings.load(None).home).plans()
    return next((one.active for one in plans if one.name == plan), None)


def _reselection(settings: PlanSettings, budget: Budget) -> Reselection | None:
    if not settings.every_frames:
        return None
    own = (settings.memory_mib, settings.latency_ms)
    return Reselection(
        budget if own == (None, None) else Budget(*own),
        every=settings.every_frames,
        share=settings.profiled_share,
        least=settings.least_profiled,
        hysteresis=Hysteresis(settings.period_s, settings.least_gain),
    )


def _links(settings: PlanSettings, folder: Path, names: Sequence[str]) -> dict[str, Ensemble]:
    """The links of a plan, by target."""
    found = {}
    for name in names:
        if settings.links is not None:
            path = folder / settings.links / name
        else:
            path = _folder_of(Path(name), folder, "links")
        if not is_link(path):
            raise SettingsError(
                f"plan: there are no links to '{name}' in {path}: give 'links', or fetch them "
                "with 'triparty device pull'"
            )
        found[name] = open_links(path)
    return found


def _folder_of(given: Path, folder: Path, room: str) -> Path:
    """Relative to the configuration, or among those that were pulled."""
    own = folder / given
    if own.exists() or len(given.parts) != 1:
        return own
    from triparty.device.settings import DeviceSettings

    pulled = DeviceSettings.load(None).home / room / given
    return pulled if pulled.exists() else own


def _specs(ensembles: Mapping[str, Ensemble]) -> dict[str, OutputSpec]:
    specs: dict[str, OutputSpec] = {}
    for target, ensemble in ensembles.items():
        for name, spec in {**ensemble.sources, target: ensemble.target}.items():
            if specs.setdefault(name, spec) != spec:
                raise SettingsError(
                    f"links disagree on what '{name}' gives: train them together"
                )
    return specs


def _labels(model: ModelSettings) -> tuple[str, ...]:
    return COCO if model.labels == "coco" else tuple(model.labels)
