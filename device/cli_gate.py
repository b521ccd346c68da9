"""`triparty device gate`: trace, report, replay, fit."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from triparty.common.console import Console, JsonOption, progress
from triparty.common.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from triparty.device.gate.fleet import Tables
    from triparty.device.gate.predictor import Predictor
    from triparty.device.gate.report import Gateability
    from triparty.device.gate.scoring import Score
    from triparty.device.gate.traces import Trace

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="Train a gate from traces, replay policies over them, see how gateable a camera is.",
)

TracesArgument = Annotated[
    list[Path], typer.Argument(help="Traces: npz files, or folders that a gateway wrote.")
]


@app.command()
def trace(
    source: Annotated[str, typer.Argument(help="A clip, or a camera's URL.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The npz file to write.")],
    detector: Annotated[
        list[Path] | None,
        typer.Option(
            help="An ONNX detector that looks at every frame (YOLOX, FastestDet, Ultra-Light "
            "faces); may be repeated."
        ),
    ] = None,
    least_score: Annotated[float, typer.Option(help="Detections below are dropped.")] = 0.35,
    task: Annotated[
        list[str] | None,
        typer.Option(
            help="What results answer, as NAME=MEASURE or NAME=MEASURE:CLASS,CLASS of the "
            "first detector; MEASURE is count, presence, labels, boxes or anomaly. Default: "
            "count of all objects."
        ),
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="What to call the camera (default: the file's name).")
    ] = None,
    packets: Annotated[
        int | None, typer.Option(help="Stop after so many packets; a URL needs it.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Make a trace: type and time every packet, and ask a detector about every frame."""
    from triparty.device.gate.detectors import Detector
    from triparty.device.gate.recording import is_url, record, shown_name
    from triparty.device.gate.trace_files import write_trace

    if is_url(source) and packets is None:
        raise SettingsError("a URL has no end: say how many --packets to take")
    if output.suffix != ".npz":
        raise SettingsError(f"--output {output}: expected a name that ends in .npz")
    models = [Detector(path, least_score=least_score) for path in detector or []]
    if task and not models:
        raise SettingsError("--task needs a --detector whose results answer it")
    tasks = [_task(text, models[0].name) for text in task or []]
    console = Console(as_json=as_json)
    with progress(f"looking at {shown_name(source)}", packets or _length(source)) as advance:
        made = record(
            source,
            detectors=models,
            tasks=tasks,
            camera=name,
            limit=packets,
            passes=3,
            seen=lambda _: advance(1),
        )
    write_trace(made, output)
    console.say(
        f"wrote {output}: {len(made.packets)} packets, {made.duration:.1f} s, "
        f"{len(made.results)} results of {len(made.models)} models"
    )
    console.say("a trace tells when something happened, also without pixels: keep it private")
    console.report(
        {
            "trace": str(output),
            "packets": len(made.packets),
            "seconds": made.duration,
            "models": list(made.models),
            "tasks": [asdict(one) for one in made.tasks],
        }
    )


@app.command()
def report(
    source: Annotated[
        str, typer.Argument(help="A clip, a camera's URL, or a trace (npz or folder).")
    ],
    packets: Annotated[
        int, typer.Option(help="How many packets of a clip or URL to look at.")
    ] = 1500,
    inference_fps: Annotated[
        float | None,
        typer.Option(help="Frames a second that your model takes on what it runs on."),
    ] = None,
    filter_rate: Annotated[
        float, typer.Option(help="Share of decoded frames that a filter spares the model.")
    ] = 0.0,
    as_json: JsonOption = False,
) -> None:
    """How gateable a camera is: what its packets allow to leave out, and what to change."""
    from triparty.device.gate.recording import record
    from triparty.device.gate.report import advice, gateability
    from triparty.device.gate.trace_files import read_trace

    if not 0 <= filter_rate < 1:
        raise SettingsError(f"--filter-rate {filter_rate}: expected 0 to below 1")
    path = Path(source)
    is_trace = "://" not in source and (path.is_dir() or path.suffix == ".npz")
    found_trace = read_trace(path) if is_trace else record(source, limit=packets)
    found = gateability(found_trace)
    saving = _savings(found_trace)
    console = Console(as_json=as_json)
    if not as_json:
        _tell(found, saving, inference_fps, filter_rate)
    balance = found.inference_fps_needed(filter_rate)
    console.report(
        {
            **asdict(found),
            "decode_fps": 1000 / found.decode_ms,
            "bottleneck_above_fps": balance,
            "decoding_is_bottleneck": None
            if inference_fps is None
            else inference_fps > balance,
            "saving": saving,
            "advice": list(advice(found)),
        }
    )


@app.command()
def replay(
    traces: TracesArgument,
    policy: Annotated[
        list[str] | None,
        typer.Option(
            help="A policy; may be repeated. Default: ours. 'all' for all whose gate is given."
        ),
    ] = None,
    streams: Annotated[int, typer.Option(help="How many, made of the traces.")] = 1000,
    budget: Annotated[
        list[float] | None,
        typer.Option(help="CPU ms a round for decoding all streams; may be repeated."),
    ] = None,
    budget_share: Annotated[
        list[float] | None,
        typer.Option(help="The same as a share of what decoding everything takes."),
    ] = None,
    seconds: Annotated[float, typer.Option(help="How long, on the streams' clock.")] = 600.0,
    round_ms: Annotated[float, typer.Option(help="Length of a round.")] = 40.0,
    gate: Annotated[
        list[Path] | None,
        typer.Option(
            help="A folder that 'gate fit' wrote, for the policy of its network: extended for "
            "ours, published for paper, contextual for contextual; may be repeated."
        ),
    ] = None,
    max_staleness: Annotated[
        float | None,
        typer.Option(help="Look at every stream that often, in seconds, if the budget allows."),
    ] = None,
    audit: Annotated[
        float,
        typer.Option(help="Share of groups to audit: what that tells, beside what is true."),
    ] = 0.0,
    task: Annotated[
        list[str] | None, typer.Option(help="Score these tasks alone; may be repeated.")
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(help="Draw accuracy against cost: a PNG or SVG file.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Repeats offsets and draws.")] = 0,
    as_json: JsonOption = False,
) -> None:
    """Replay policies over traces, many streams at random offsets, and score what they held."""
    from triparty.device.cli_gate_replay import as_json_run, tell
    from triparty.device.gate.policies import POLICIES
    from triparty.device.gate.trace_files import read_trace

    if streams < 1:
        raise SettingsError(f"--streams {streams}: expected at least 1")
    known = _tables([read_trace(path) for path in traces], task)
    gates = _predictors(gate or [])
    names = _policies(policy or ["ours"], gates)
    course = _Course(
        known, streams, seconds, round_ms / 1000, seed, gates, max_staleness, audit
    )
    budgets = course.budgets(budget, budget_share)
    console = Console(as_json=as_json)
    if policy == ["all"]:
        left = ", ".join(sorted(POLICIES.keys() - set(names))) or "none"
        console.say(f"left out, as no --gate has their network: {left}")
    scores = []
    with progress("replaying", seconds * len(names) * len(budgets)) as advance:
        for name in names:
            for one in budgets:
                scores.append((name, one, course.score(name, one, advance)))
    runs = [as_json_run(name, one, score) for name, one, score in scores]
    if plot is not None:
        _plot(scores, plot)
    if not as_json:
        tell(known, streams, seconds, scores)
    console.report({**runs[0], "runs": runs})


@app.command()
def fit(
    traces: TracesArgument,
    output: Annotated[Path, typer.Option("--output", "-o", help="The gate's folder to write.")],
    network: Annotated[
        str,
        typer.Option(
            help="extended (ours), published (the thesis's network) or contextual (the same "
            "without feedback)."
        ),
    ] = "extended",
    window: Annotated[int, typer.Option(help="How many sizes a view holds.")] = 5,
    gating: Annotated[
        str,
        typer.Option(help="random: under simulated gates; full: as if all were decoded."),
    ] = "random",
    epochs: Annotated[int, typer.Option(help="Most passes over the samples.")] = 60,
    task: Annotated[
        list[str] | None, typer.Option(help="Learn these tasks alone; may be repeated.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of masks, weights and order.")] = 0,
    as_json: JsonOption = False,
) -> None:
    """Train a gate from traces; needs torch, which using the gate does not."""
    from typing import cast

    from triparty.device.gate.fitting import fit_gate
    from triparty.device.gate.policies import POLICIES
    from triparty.device.gate.trace_files import read_trace
    from triparty.device.gate.training import Course, Gating

    course = Course(gating=cast(Gating, gating), epochs=epochs, seed=seed)
    known = _with_tasks([read_trace(path) for path in traces], task)
    gate = fit_gate(known, network, course, window=window)
    gate.save(output)
    console = Console(as_json=as_json)
    facts = gate.training
    console.say(
        f"wrote {output}: {gate.predictor.network.parameters} parameters, "
        f"{facts.samples} samples of {facts.recordings} parts, {facts.epochs} passes, "
        f"cross-entropy {facts.loss:.3f}"
    )
    for one, rate in zip(gate.tasks, facts.base_rate, strict=True):
        console.say(f"  {one.name}: {rate:.1%} of samples were necessary")
    serves = next(one.name for one in POLICIES.values() if one.network == network)
    console.say(f"next: triparty device gate replay TRACES --gate {output} --policy {serves}")
    console.report(
        {
            "gate": str(output),
            "tasks": [one.name for one in gate.tasks],
            "network": network,
            "parameters": gate.predictor.network.parameters,
            **asdict(facts),
        }
    )


class _Course:
    """What all runs of one command share."""

    def __init__(
        self,
        known: Tables,
        streams: int,
        seconds: float,
        round_s: float,
        seed: int,
        gates: Sequence[Predictor],
        max_staleness: float | None,
        audit: float,
    ) -> None:
        from triparty.device.gate.fleet import full_rate, spread

        self._known, self._seconds, self._round_s = known, seconds, round_s
        self._seed, self._gates, self._max_staleness = seed, gates, max_staleness
        self._audit = audit
        self._streams = spread(known, streams, seed)
        self._full_ms = full_rate(known, self._streams) * round_s

    def budgets(self, given: list[float] | None, shares: list[float] | None) -> list[float]:
        """CPU ms a round."""
        found = list(given or []) + [share * self._full_ms for share in shares or []]
        return found or [0.25 * self._full_ms]

    def score(self, name: str, budget_ms: float, advance: Any) -> Score:
        """One run."""
        from triparty.device.gate.fleet_truth import FleetTruth
        from triparty.device.gate.policies import POLICIES, make, matching
        from triparty.device.gate.replay import Replay, Settings

        policy = make(
            name,
            predictor=matching(name, self._gates),
            truth=FleetTruth(self._known, self._streams),
            seed=self._seed,
            max_staleness=self._max_staleness,
        )
        settings = Settings(
            seconds=self._seconds,
            budget_ms=budget_ms,
            round_s=self._round_s,
            leftover=POLICIES[name].leftover,
            audit_share=self._audit,
            audit_seed=self._seed,
        )
        return Replay(self._known, self._streams, policy, settings).run(advance)


def _predictors(gates: list[Path]) -> list[Predictor]:
    from triparty.device.gate.artifact import Gate

    return [Gate.open(folder).predictor for folder in gates]


def _policies(wanted: list[str], gates: Sequence[Predictor]) -> list[str]:
    """The policies to replay, each checked before the first begins; of all, those that can be.

    Raises:
        SettingsError: one that is not known, or whose gate was not given.
    """
    from triparty.device.gate.policies import POLICIES, matching

    if wanted == ["all"]:
        kinds = {gate.network.kind for gate in gates}
        wanted = [
            name
            for name, one in POLICIES.items()
            if one.network in kinds or not (one.learns or (one.network and gates))
        ]
    for name in wanted:
        matching(name, gates)
    return wanted


def _tables(traces: list[Trace], wanted: list[str] | None) -> Tables:
    from triparty.device.gate.fleet import tables

    return tables(_with_tasks(traces, wanted))


def _with_tasks(traces: list[Trace], wanted: list[str] | None) -> list[Trace]:
    """The traces with some of their tasks; all by default."""
    from dataclasses import replace

    names = {task.name for trace in traces for task in trace.tasks}
    missing = set(wanted or []) - names
    if missing or not names:
        raise SettingsError(
            f"no trace answers {', '.join(sorted(missing)) or 'anything'}: "
            f"{', '.join(sorted(names)) or 'make traces with a --detector'}"
        )
    kept = set(wanted or names)
    return [replace(one, tasks=tuple(t for t in one.tasks if t.name in kept)) for one in traces]


def _task(text: str, model: str) -> Any:
    from triparty.device.gate.traces import Task

    name, _, rest = text.partition("=")
    measure, _, classes = rest.partition(":")
    try:
        numbers = tuple(int(one) for one in classes.split(",") if one)
    except ValueError:
        raise SettingsError(
            f"--task {text}: classes are numbers, as in people=count:0"
        ) from None
    if not name or not measure:
        raise SettingsError(f"--task {text}: expected NAME=MEASURE, as in people=count:0")
    return Task(name, model, measure, numbers)  # type: ignore[arg-type]


def _length(source: str) -> float:
    """Frames of a clip as its container says, for a progress bar; 0 if it does not."""
    import av

    try:
        with av.open(source) as container:
            return float(container.streams.video[0].frames)
    except (av.error.FFmpegError, OSError, IndexError):
        return 0.0


def _savings(known: Trace) -> list[dict[str, float | str]]:
    """What it would take to be right on this camera alone, by replay of labelled traces."""
    if not known.tasks or known.origin.ungateable is not None or not len(known.results):
        return []
    from triparty.device.gate.report_saving import savings

    return [asdict(one) for one in savings(known)]


def _plot(scores: list[tuple[str, float, Score]], target: Path) -> None:
    from triparty.device.gate.plots import plot_accuracy

    plot_accuracy([(name, score) for name, _, score in scores], target)


def _tell(
    found: Gateability,
    saving: list[dict[str, float | str]],
    inference_fps: float | None,
    filter_rate: float,
) -> None:
    from rich.console import Console as RichConsole
    from rich.table import Table

    from triparty.device.gate.report import advice

    out = RichConsole()
    table = Table(title=f"camera {found.camera}", show_header=False, title_justify="left")
    table.add_column(style="bold")
    table.add_column()
    how = "measured" if found.measured else "expected by size, not measured"
    groups = f"{found.group_frames[0]:.0f} frames, {found.group_seconds[0]:.1f} s"
    rows = [
        (
            "stream",
            f"{found.codec} {found.size[0]}x{found.size[1]}, {found.fps:.4g} frames/s, "
            f"{found.kilobits_per_s:.0f} kb/s, {found.container}",
        ),
        ("looked at", f"{found.packets} packets, {found.seconds:.1f} s"),
        ("GOP", f"median {groups}; longest {found.group_frames[1]} frames"),
        ("pictures", ", ".join(f"{share:.0%} {kind}" for kind, share in found.types.items())),
        ("bytes", ", ".join(f"{share:.0%} {kind}" for kind, share in found.type_bytes.items())),
        ("nobody refers to", f"{found.free_share:.0%} of pictures"),
        (
            "decoding",
            f"{found.decode_ms:.2f} ms a frame ({how}): {1000 / found.decode_ms:.0f} "
            "frames/s on a core",
        ),
        ("keyframes alone", f"{found.keyframe_cost:.1%} of full decode"),
        ("without those that", f"nobody refers to: {found.reference_cost:.0%} of full decode"),
        (
            "closure tax",
            f"a picture out of nothing costs {found.closure_tax:.1f} times its own; "
            f"at most {found.largest_closure_ms:.1f} ms",
        ),
    ]
    rows += [
        ("sizes tell", f"{one.of}: AUC {one.auc:.2f} ({_word(one.auc)})")
        for one in found.signals
    ]
    for title, text in rows:
        table.add_row(title, text)
    out.print(table)
    _tell_saving(out, found, saving)
    balance = found.inference_fps_needed(filter_rate)
    out.print(
        f"Decoding is the bottleneck if your model takes more than {balance:.0f} frames/s for "
        f"each core that decodes (T_inference > (1 - r) T_decode, r = {filter_rate:g})."
    )
    if inference_fps is not None:
        verdict = "is" if inference_fps > balance else "is not"
        out.print(f"At {inference_fps:g} frames/s it {verdict}.")
    for line in advice(found):
        out.print(f"- {line}")


def _tell_saving(out: Any, found: Gateability, saving: list[dict[str, float | str]]) -> None:
    if found.ungateable is not None:
        out.print("Nothing can be saved before decoding.")
        return
    if not saving:
        out.print(
            f"Without labels nobody can say what is missed; a look at keyframes alone saves "
            f"{1 - found.keyframe_cost:.0%}. Make a labelled trace: triparty device gate trace."
        )
        return
    for one in saving:
        share, within = float(one["share"]), float(one["tolerance_s"])
        late = "at once" if within == 0 else f"within {within:g} s"
        if share > 1:
            out.print(f"{one['accuracy']:.0%} right {late}: only by decoding nearly everything")
        else:
            out.print(f"{one['accuracy']:.0%} right {late}: saves {1 - share:.0%} of decoding")


def _word(value: float) -> str:
    if value >= 0.8:
        return "well"
    if value >= 0.65:
        return "somewhat"
    return "hardly" if value > 0.35 else "turned round: busy pictures are smaller"
