"""`triparty developer links`: train and evaluate links from recorded outputs, and plan."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from triparty.common.console import Console, JsonOption, progress
from triparty.developer.cli_links_plan import RowsOption, library, plan

if TYPE_CHECKING:
    from triparty.developer.links.judging import Judged

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="Predict models' outputs from those of others.",
)

app.command()(plan)
app.command()(library)

RecordedArgument = Annotated[
    Path,
    typer.Argument(
        metavar="RECORDED",
        help="A folder with specs.json and outputs.npz or outputs.parquet: what each model "
        "said of the same inputs.",
    ),
]


@app.command()
def train(
    recorded: RecordedArgument,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="A folder; each target gets one in it.")
    ],
    target: Annotated[
        list[str] | None,
        typer.Option(help="A model to predict; may be repeated (default: all)."),
    ] = None,
    sources: Annotated[
        int,
        typer.Option(min=1, help="Most sources of a target: those it depends on most."),
    ] = 4,
    epochs: Annotated[int, typer.Option(min=1, help="Most passes over the rows.")] = 100,
    seed: Annotated[int, typer.Option(min=0, help="Of weights, order and folds.")] = 0,
    rows: RowsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Train links from recorded outputs; needs torch, which using them does not."""
    from triparty.common.errors import SettingsError
    from triparty.common.links.folder import save_links
    from triparty.common.links.linking import train_links
    from triparty.common.links.pairs import chosen_pairs
    from triparty.common.links.recipe import Recipe
    from triparty.common.links.recorded import Recorded
    from triparty.developer.links.rows import rows_of

    data, console = rows_of(Recorded.open(recorded), rows), Console(as_json=as_json)
    if len(data.specs) < 2:
        raise SettingsError(f"{recorded} holds one model alone: links need two or more")
    wanted = set(data.models(target).specs if target else data.specs)
    pairs = [pair for pair in chosen_pairs(data, most_sources=sources) if pair[1] in wanted]
    trained: list[dict[str, Any]] = []
    with progress(f"training {len(pairs)} links on {len(data)} inputs", len(pairs)) as advance:

        def told(pair: tuple[str, str], fitted: Any) -> None:
            advance(1, note=f"{pair[0]} to {pair[1]}")
            trained.append(
                {
                    "source": pair[0],
                    "target": pair[1],
                    "kind": fitted.link.design.kind,
                    "agreement": fitted.agreement,
                    "without": fitted.floor,
                    "learnt": not fitted.is_kept_back,
                    "parameters": fitted.link.parameters,
                }
            )

        made = train_links(data, Recipe(epochs=epochs, seed=seed), pairs=pairs, on_link=told)
    for name, ensemble in made.items():
        save_links(ensemble, output / name)
        console.say(f"{name}: agreement {ensemble.expected:.3f} on inputs held out, from")
        for one in trained:
            if one["target"] == name:
                console.say(
                    f"  {one['source']:20} {one['agreement']:.3f} alone, "
                    f"{one['without']:.3f} untrained"
                )
    console.say(f"next: triparty developer links evaluate {output} OTHER-RECORDED")
    console.report(
        {
            "links": str(output),
            "inputs": len(data),
            "expected": {name: one.expected for name, one in made.items()},
            "pairs": trained,
        }
    )


@app.command()
def evaluate(
    links: Annotated[
        Path, typer.Argument(metavar="LINKS", help="A folder of links, or of several.")
    ],
    recorded: RecordedArgument,
    rows: RowsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Judge links on outputs that they have not learnt from."""
    from triparty.common.links.recorded import Recorded
    from triparty.developer.links.judging import judge, open_all
    from triparty.developer.links.rows import rows_of

    data, console = rows_of(Recorded.open(recorded), rows), Console(as_json=as_json)
    judged = [judge(ensemble, data) for ensemble in open_all(links).values()]
    for one in judged:
        console.say(
            f"{one.target}: {one.metric} {one.together.value:.3f}, always the same "
            f"{one.constant.value:.3f}, {one.cost_us:.0f} us"
        )
        for source, found in one.alone.items():
            console.say(f"  {source:20} {found.value:.3f}, weight {one.weights[source]:.2f}")
        if one.gain <= 0:
            console.say("  worth nothing: saying always the same is as good")
    console.report({"inputs": len(data), "targets": [_told(one) for one in judged]})


def _told(judged: Judged) -> dict[str, Any]:
    return {**asdict(judged), "gain": judged.gain}
