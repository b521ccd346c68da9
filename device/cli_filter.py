"""`triparty device filter`: fit, evaluate, request, jobs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from triparty.common.console import Console, JsonOption, progress
from triparty.common.errors import SettingsError

if TYPE_CHECKING:
    from triparty.common.nets.blocks import Blocks
    from triparty.common.nets.calibration import Calibration
    from triparty.common.nets.course import Course
    from triparty.common.nets.design import FilterKind
    from triparty.common.replies import JobRecord
    from triparty.device.filters.baselines import Curve
    from triparty.device.filters.evaluation import Evaluation
    from triparty.device.filters.filter import Filter
    from triparty.device.filters.filterability import Filterability
    from triparty.device.filters.fitting import Recipe
    from triparty.device.filters.measures import Measure
    from triparty.device.home import Home

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="Train an input filter from what a model said, see whether it is worth having.",
)

HomeOption = Annotated[
    Path | None,
    typer.Option(
        "--home", help="This device's folder (default: ~/.local/share/triparty/device)."
    ),
]
ConfigOption = Annotated[Path | None, typer.Option("--config", help="Settings as a TOML file.")]
DataArgument = Annotated[
    Path,
    typer.Argument(help="A data set: .npz, .parquet, a folder of .npy or of .npz files."),
]
InputsOption = Annotated[
    list[str] | None,
    typer.Option(
        help="A column of inputs, or NAME=COLUMN; may be repeated (default: all but the "
        "results; to evaluate, those that the filter names)."
    ),
]
ResultsOption = Annotated[
    str | None,
    typer.Option(
        help="The column of what the model said (default: results, needed, labels or y)."
    ),
]
BlocksOption = Annotated[
    str | None,
    typer.Option(
        help="COLUMN or COLUMN:LENGTH: rows of one value, or stretches of a length such as "
        "wall:60, depend on each other and count as one sample for the threshold's promise."
    ),
]
ModelOption = Annotated[
    Path | None,
    typer.Option(help="The model that is filtered, as ONNX: makes the results, and is timed."),
]


@app.command()
def fit(
    data: DataArgument,
    output: Annotated[Path, typer.Option("--output", "-o", help="The filter's folder.")],
    kind: Annotated[
        str, typer.Option(help="skip useless inputs, or reuse results of earlier ones.")
    ] = "skip",
    measure: Annotated[
        str,
        typer.Option(
            help="What makes a result redundant: as-given, nothing-detected, count-zero, "
            "class-not-in:A,B, confidence-below:T, fewer-words-than:N, regression-above:T, "
            "label-changed. For skip alone."
        ),
    ] = "as-given",
    inputs: InputsOption = None,
    results: ResultsOption = None,
    model: ModelOption = None,
    modality: Annotated[
        list[str] | None,
        typer.Option(
            help="NAME=MODALITY where shapes do not tell: text, image, video, audio, vector "
            "or series; may be repeated."
        ),
    ] = None,
    target_accuracy: Annotated[
        float, typer.Option(help="Agreement with the model to keep.")
    ] = 0.9,
    confidence: Annotated[float, typer.Option(help="With which it is kept.")] = 0.95,
    epochs: Annotated[int, typer.Option(help="Most passes over the samples.")] = 20,
    loss: Annotated[
        str, typer.Option(help="Of reuse: pairs, or contrastive as published.")
    ] = "pairs",
    seed: Annotated[int, typer.Option(help="Of weights and order.")] = 0,
    blocks: BlocksOption = None,
    trial: Annotated[
        bool, typer.Option(help="First try on some samples whether skipping can work.")
    ] = True,
    as_json: JsonOption = False,
) -> None:
    """Train a filter; needs torch, which using it does not."""
    from typing import cast

    from triparty.common.nets.design import FilterKind
    from triparty.device.filters.filter import Filter
    from triparty.device.filters.fitting import Recipe, training_module

    columns, said, numbers = _data(
        data, inputs, _one_task(results), _label_model(model), blocks
    )
    course = training_module().Course(epochs=epochs, seed=seed, loss=loss)
    recipe = Recipe(cast(FilterKind, kind), target_accuracy, confidence)
    redundant = _measure(measure) if kind == "skip" else None
    modalities = _modalities(modality)
    console = Console(as_json=as_json)
    tried = None
    if redundant is not None and trial:
        tried = _trial(columns, said, redundant, target_accuracy, modalities, seed)
        for line in _trial_lines(tried):
            console.say(line)
    if numbers is None:
        _warn_of_alike_rows(said, redundant)
    with progress(f"training on {len(said)} inputs", epochs) as advance:
        made = Filter.fit(
            columns,
            said,
            redundant,
            recipe=recipe,
            modality=modalities,
            course=course,
            blocks=numbers,
            on_epoch=lambda epoch: advance(1, note=f"held-out loss {epoch.loss:.3f}"),
        )
    made.save(output)
    artifact = made.artifact
    found = artifact.tasks[0].calibration
    console.say(
        f"wrote {output}: {', '.join(one.modality for one in artifact.design.inputs)}, "
        f"{artifact.training.samples} samples, {artifact.training.epochs} passes"
    )
    for line in _calibration_lines(found):
        console.say(line)
    console.say(f"next: triparty device filter evaluate {output} OTHER-DATA")
    console.report(
        {
            "filter": str(output),
            "kind": kind,
            "inputs": [asdict(one) for one in artifact.design.inputs],
            "calibration": asdict(found),
            "training": asdict(artifact.training),
            "trial": None if tried is None else asdict(tried),
        }
    )


@app.command()
def evaluate(
    folder: Annotated[Path, typer.Argument(metavar="FILTER", help="The filter's folder.")],
    data: DataArgument,
    inputs: InputsOption = None,
    results: Annotated[
        list[str] | None,
        typer.Option(
            help="The column of what the model said (default: results, needed, labels or y), "
            "or TASK=COLUMN for each task of the filter."
        ),
    ] = None,
    model: ModelOption = None,
    model_ms: Annotated[
        float | None,
        typer.Option(help="What the model takes for one input, if it is not at hand."),
    ] = None,
    baselines: Annotated[
        bool,
        typer.Option(
            help="Beside luck and ways that need no network, which learn from the first half "
            "of the data; all are judged by the second."
        ),
    ] = False,
    plot: Annotated[
        Path | None,
        typer.Option(help="With --baselines: accuracy against filter rate, .png or .svg."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Score a filter on other data, and say whether it is worth having on this device."""
    from triparty.device.filters.filter import Filter

    if plot is not None and not baselines:
        raise SettingsError("--plot draws what --baselines compares: name both")
    made = Filter.load(folder)
    source = _label_model(model)
    names = [one.name for one in made.artifact.inputs]
    columns, said, _ = _data(data, inputs or names, results or (), source)
    by_task = said if isinstance(said, dict) else {made.artifact.tasks[0].name: said}
    if baselines and len(by_task) > 1:
        raise SettingsError("--baselines compares filters of one task, this one has several")
    timed = None if source is None else lambda one: source(_only(one))
    found = made.evaluate(columns, by_task, model=timed)
    if source is None and model_ms is not None:
        found = found.with_model_cost(model_ms)
    console = Console(as_json=as_json)
    for line in _evaluation_lines(found):
        console.say(line)
    task, worth = found.tasks[0], found.worth
    curves = _compared(made, columns, by_task) if baselines else []
    for curve in curves:
        console.say(f"{curve.name:>24} {curve.rate_at(task.target_accuracy):>7.1%}")
    if plot is not None:
        from triparty.device.filters.plots import plot_curves

        plot_curves(curves, task.target_accuracy, plot)
    is_worth = worth.worth_having
    if is_worth is None:
        console.say("the model's cost is unknown: worth having for the traffic alone")
        is_worth = task.calibrated.filter_rate > 0
    console.report(
        {
            "filter_rate": task.calibrated.filter_rate,
            "accuracy": task.calibrated.accuracy,
            "best_possible": task.best_possible,
            "cost_ms": worth.cost_ms,
            "model_cost_ms": worth.model_cost_ms,
            "worth_having": is_worth,
            "break_even": worth.break_even,
            "samples": found.samples,
            "tasks": [asdict(one) for one in found.tasks],
            "baselines": {one.name: one.rate_at(task.target_accuracy) for one in curves},
        }
    )


def _compared(made: Filter, columns: dict[str, Any], by_task: dict[str, Any]) -> list[Curve]:
    from triparty.device.filters.baselines import compared

    core = made.core
    samples = made.samples(columns, by_task, core)
    return compared(core.artifact, core.session, samples.inputs, samples.labels)


@app.command()
def request(
    data: DataArgument,
    output: Annotated[Path, typer.Option("--output", "-o", help="The filter's folder.")],
    send: Annotated[
        str | None,
        typer.Option(
            help="What the cloud is sent: nothing (train here), features (of a random first "
            "stage that stays here), or inputs (raw). Default: nothing where torch is "
            "installed, else features."
        ),
    ] = None,
    kind: Annotated[
        str, typer.Option(help="skip useless inputs, or reuse results of earlier ones.")
    ] = "skip",
    measure: Annotated[
        str, typer.Option(help="What makes a result redundant, as for fit. For skip alone.")
    ] = "as-given",
    inputs: InputsOption = None,
    results: ResultsOption = None,
    model: ModelOption = None,
    modality: Annotated[
        list[str] | None,
        typer.Option(help="NAME=MODALITY where shapes do not tell; may be repeated."),
    ] = None,
    target_accuracy: Annotated[
        float, typer.Option(help="Agreement with the model to keep.")
    ] = 0.9,
    confidence: Annotated[float, typer.Option(help="With which it is kept.")] = 0.95,
    size: Annotated[
        list[str] | None,
        typer.Option(
            help="NAME=NUMBER of the network: units, embedding, filters, text_width, "
            "resolution or dropout; may be repeated (default: as published)."
        ),
    ] = None,
    epochs: Annotated[int, typer.Option(help="Most passes over the samples.")] = 20,
    loss: Annotated[
        str, typer.Option(help="Of reuse: pairs, or contrastive as published.")
    ] = "pairs",
    seed: Annotated[int, typer.Option(help="Of weights and order.")] = 0,
    blocks: BlocksOption = None,
    home: HomeOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Have the cloud train a filter; cut, the same command goes on waiting."""
    from typing import cast

    from triparty.common.nets.course import Course, Loss
    from triparty.common.nets.design import FilterKind
    from triparty.device.filters.fitting import Recipe, can_train
    from triparty.device.filters.requests import CLOUD_LEARNS, SENDINGS

    sending = send or ("nothing" if can_train() else "features")
    if sending not in SENDINGS:
        raise SettingsError(f"--send {sending:.40}: expected one of {', '.join(SENDINGS)}")
    console = Console(as_json=as_json)
    learns = CLOUD_LEARNS[sending]
    console.say(f"sending {sending}: {learns}")
    columns, said, numbers = _data(
        data, inputs, _one_task(results), _label_model(model), blocks
    )
    asked = _Asked(
        columns,
        said,
        _measure(measure) if kind == "skip" else None,
        Recipe(cast(FilterKind, kind), target_accuracy, confidence, sizes=_sizes(size)),
        Course(epochs=epochs, seed=seed, loss=cast(Loss, loss)),
        _modalities(modality),
        numbers,
    )
    if sending == "nothing":
        document = _trained_here(asked, output)
    else:
        document = _trained_there(asked, output, sending, home, config)
    for line in document.pop("lines"):
        console.say(line)
    console.report({"filter": str(output), "sent": sending, "cloud_learns": learns, **document})


@app.command()
def jobs(
    cancel: Annotated[
        str | None, typer.Option(help="End this job at once and remove all of it.")
    ] = None,
    home: HomeOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """List this device's training jobs on the cloud, or cancel one."""
    from triparty.device.filters import requests

    own = _home(home, config)
    console = Console(as_json=as_json)
    if cancel is not None:
        requests.cancel(own, cancel)
        console.say(f"cancelled {cancel}: its data are gone from the cloud")
    with own.access().client() as client:
        found = client.jobs()
    for one in found:
        console.say(f"{one.job}  {one.state}  epoch {one.epoch} of {one.epochs}")
    if not found:
        console.say("no jobs")
    console.report(
        {
            "jobs": [
                {
                    "job": one.job,
                    "state": one.state,
                    "epoch": one.epoch,
                    "epochs": one.epochs,
                    "loss": one.loss,
                    "seconds_left": one.seconds_left,
                    "problem": one.problem,
                }
                for one in found
            ]
        }
    )


@dataclass(frozen=True)
class _Asked:
    """What `request` was asked for."""

    columns: dict[str, Any]
    said: Any
    measure: Measure | None
    recipe: Recipe
    course: Course
    modalities: dict[str, Any]
    blocks: Blocks | None


def _trained_here(asked: _Asked, output: Path) -> dict[str, Any]:
    from triparty.device.filters.filter import Filter

    with progress(f"training on {len(asked.said)} inputs", asked.course.epochs) as advance:
        made = Filter.fit(
            asked.columns,
            asked.said,
            asked.measure,
            recipe=asked.recipe,
            modality=asked.modalities,
            course=asked.course,
            blocks=asked.blocks,
            on_epoch=lambda epoch: advance(1, note=f"held-out loss {epoch.loss:.3f}"),
        )
    made.save(output)
    found = made.artifact.tasks[0].calibration
    lines = [f"wrote {output}", *_calibration_lines(found)]
    return {
        "lines": lines,
        "job": None,
        "taken": True,
        "calibration": asdict(found),
        "sent_rows": 0,
        "sent_bytes": 0,
    }


def _trained_there(
    asked: _Asked, output: Path, sending: str, home: Path | None, config: Path | None
) -> dict[str, Any]:
    from datetime import UTC, datetime
    from typing import cast

    from triparty.device.filters.requests import Sending, request_filter, wanted_filter

    wanted = wanted_filter(
        asked.columns,
        asked.said,
        asked.measure,
        recipe=asked.recipe,
        course=asked.course,
        modality=asked.modalities,
        blocks=asked.blocks,
        sending=cast(Sending, sending),
    )
    with progress("waiting for the cloud", asked.course.epochs) as advance:
        before = 0

        def show(record: JobRecord) -> None:
            nonlocal before
            advance(record.epoch - before, note=_job_note(record))
            before = record.epoch

        done = request_filter(
            _home(home, config), wanted, output, now=datetime.now(UTC), on_job=show
        )
    found = done.artifact.tasks[0].calibration
    taken = f"wrote {output}" if done.taken.is_taken else f"kept the filter in {output}"
    return {
        "lines": [
            f"{taken}: {done.taken.reason}",
            *_calibration_lines(found),
            f"the cloud was sent {done.sent_rows} samples ({done.sent_bytes} bytes) and has "
            f"removed them; {done.kept_rows} never left",
        ],
        "job": done.job,
        "taken": done.taken.is_taken,
        "calibration": asdict(found),
        "sent_rows": done.sent_rows,
        "sent_bytes": done.sent_bytes,
    }


def _job_note(record: JobRecord) -> str:
    if record.state == "waiting" or not record.epoch:
        return f"the cloud: {record.state}"
    losses = [
        f"{name} {value:.3f}"
        for name, value in (("loss", record.training_loss), ("held-out loss", record.loss))
        if value is not None
    ]
    return f"epoch {record.epoch} of {record.epochs}: {', '.join(losses)}"


def _calibration_lines(found: Calibration) -> list[str]:
    count = f"{found.samples} samples"
    if found.blocks:
        count += f" in {found.blocks} blocks"
    if found.threshold is None:
        return [
            f"filters nothing: {count} show no threshold that keeps an "
            f"accuracy of {found.target_accuracy:.0%} with a confidence of "
            f"{found.confidence:.0%}{_too_few_blocks(found)}"
        ]
    return [
        f"filters {found.filter_rate:.1%} of {count} kept back, accuracy "
        f"{found.accuracy:.1%}; at least {found.target_accuracy:.0%} with a confidence of "
        f"{found.confidence:.0%}"
    ]


def _too_few_blocks(found: Calibration) -> str:
    from triparty.common.nets.blocks import least_blocks

    least = least_blocks(found.target_accuracy, found.confidence)
    if not 0 < found.blocks < least:
        return ""
    return f"; at least {least} blocks kept back can show it: name shorter ones, or more data"


def _warn_of_alike_rows(said: Any, measure: Measure | None) -> None:
    """Says so where the order of the rows shows that they depend on each other."""
    from triparty.common.nets.blocks import alike_for
    from triparty.device.filters.fitting import labels_of
    from triparty.device.filters.measures import label_changed

    kind: FilterKind = "reuse" if measure is None else "skip"
    labels = labels_of({"task": said}, {"task": measure or label_changed()}, kind)
    if rows := alike_for(labels[:, 0]):
        typer.echo(
            f"warning: results of rows stay alike for about {rows} rows: if these follow each "
            "other in time, the accuracy is promised only with --blocks, several times as long",
            err=True,
        )


def _sizes(texts: list[str] | None) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for text in texts or []:
        name, separator, number = text.partition("=")
        try:
            found[name] = float(number) if name == "dropout" else int(number)
        except ValueError:
            separator = ""
        if not separator:
            raise SettingsError(f"--size {text}: expected NAME=NUMBER, as in units=64")
    return found


def _home(home: Path | None, config: Path | None) -> Home:
    from triparty.device.home import Home
    from triparty.device.settings import DeviceSettings

    settings = DeviceSettings.load(config, home=home)
    return Home(settings.home, passphrase=settings.passphrase)


def _data(
    path: Path,
    inputs: Sequence[str] | None,
    results: Sequence[str],
    source: Any | None,
    blocks: str | None = None,
) -> tuple[dict[str, Any], Any, Blocks | None]:
    from triparty.common.tables import read_table
    from triparty.device.filters.tables import block_numbers, chosen

    table = read_table(path)
    numbers = None if blocks is None else block_numbers(table, blocks)
    if blocks is not None:
        name = blocks.partition(":")[0]
        table = {one: column for one, column in table.items() if one != name}
    columns, said = chosen(table, inputs or (), results, has_model=source is not None)
    if source is not None:
        column = _only(columns)
        with progress("asking the model", len(column)) as advance:
            said = []
            for value in column:
                said.append(source(value))
                advance(1)
    return columns, said, numbers


def _one_task(results: str | None) -> tuple[str, ...]:
    if results is not None and "=" in results:
        raise SettingsError(
            f"--results {results:.40}: the command trains filters of one task; Filter.fit in "
            "Python takes results by task"
        )
    return () if results is None else (results,)


def _only(columns: dict[str, Any]) -> Any:
    if len(columns) > 1:
        raise SettingsError(
            f"a --model takes one input: choose one of {', '.join(columns)} with --inputs"
        )
    return next(iter(columns.values()))


def _label_model(path: Path | None) -> Any | None:
    from triparty.device.filters.label_model import LabelModel

    return None if path is None else LabelModel(path)


def _measure(text: str) -> Measure:
    from triparty.device.filters.measures import named

    name, _, parameters = text.partition(":")
    return named(name, *(one for one in parameters.split(",") if one))


def _modalities(texts: list[str] | None) -> dict[str, Any]:
    found = {}
    for text in texts or []:
        name, separator, modality = text.partition("=")
        if not separator:
            raise SettingsError(f"--modality {text}: expected NAME=MODALITY, as in x=series")
        found[name] = modality
    return found


def _trial(
    columns: dict[str, Any],
    said: Any,
    measure: Measure,
    target_accuracy: float,
    modalities: dict[str, Any],
    seed: int,
) -> Filterability:
    from triparty.common.nets.samples import gather
    from triparty.device.filters.filterability import filterability

    return filterability(
        gather(columns),
        measure.needed(said),
        measure,
        target_accuracy=target_accuracy,
        modalities=modalities,
        seed=seed,
    )


def _trial_lines(tried: Filterability) -> list[str]:
    verdict = "can be filtered" if tried.is_filterable else "shows no sign that it can"
    return [
        f"trial: this task {verdict}: the smallest network filters {tried.filter_rate:.1%} "
        f"({tried.low:.1%} to {tried.high:.1%}) of {tried.samples} samples, by chance "
        f"{tried.random_level:.1%}, at best {tried.best_possible:.1%}",
        f"  theory says of this measure: {tried.theory} (a hint, its proofs have gaps)",
    ]


def _evaluation_lines(found: Evaluation) -> list[str]:
    lines = []
    for task in found.tasks:
        lines.append(
            f"{task.name}: filters {task.calibrated.filter_rate:.1%}, accuracy "
            f"{task.calibrated.accuracy:.1%} (target {task.target_accuracy:.0%}); best "
            f"threshold for these inputs {task.best.filter_rate:.1%}, possible "
            f"{task.best_possible:.1%}, by chance {task.random_level:.1%}"
        )
    worth = found.worth
    lines.append(f"the filter takes {worth.cost_ms:.3f} ms an input")
    if worth.model_cost_ms is not None:
        above = "no filter rate" if worth.break_even is None else f"{worth.break_even:.1%}"
        verdict = "worth having" if worth.worth_having else "not worth having"
        lines.append(
            f"the model {worth.model_cost_ms:.3f} ms: time is saved above {above}; {verdict}"
        )
    return lines
