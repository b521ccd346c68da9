"""`triparty developer links plan`, `library`: which models to run, and what to choose from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, cast

import typer

from triparty.common.console import Console, JsonOption

CostsOption = Annotated[
    Path,
    typer.Option(
        help='JSON: for each model {"memory_mib": ..., "latency_ms": ..., "load_s": ...}, as '
        "measured on the device."
    ),
]
RowsOption = Annotated[
    str | None,
    typer.Option(
        metavar="A:B",
        help="Of the recorded rows only these: from A, the first is 0, up to and without B; "
        "-N counts from the end (default: all).",
    ),
]


def plan(
    links: Annotated[
        Path, typer.Argument(metavar="LINKS", help="A folder of links, or of several.")
    ],
    recorded: Annotated[
        Path,
        typer.Argument(
            metavar="RECORDED",
            help="Outputs of all models that the links have not learnt from.",
        ),
    ],
    costs: CostsOption,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="A folder for the plan.")
    ] = None,
    memory_mib: Annotated[
        float | None, typer.Option(min=0, help="Memory of all that is loaded, in MiB.")
    ] = None,
    latency_ms: Annotated[
        float | None, typer.Option(min=0, help="Time of all that runs for one input, in ms.")
    ] = None,
    method: Annotated[
        str, typer.Option(help="auto, greedy, exact or activation (the thesis's).")
    ] = "auto",
    link_ms: Annotated[float, typer.Option(min=0, help="Time of one link, in ms.")] = 0.1,
    rows: RowsOption = None,
    publish: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Publish the plan under this name; needs --output."),
    ] = None,
    home: Annotated[Path | None, typer.Option("--home", help="Your keys and records.")] = None,
    config: Annotated[
        Path | None, typer.Option("--config", help="Settings as a TOML file.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Choose which models run under a budget; links predict the others.

    Devices take a published plan by pull, with exactly the chosen models: publish models
    (`developer links library`), links and plan in this order.
    """
    from triparty.common.errors import SettingsError
    from triparty.common.links.planning.costs import Budget, read_costs
    from triparty.common.links.recorded import Recorded
    from triparty.developer.account import Developer
    from triparty.developer.links.judging import open_all
    from triparty.developer.links.planning import made_plan
    from triparty.developer.links.rows import rows_of
    from triparty.developer.settings import DeveloperSettings

    if publish is not None and output is None:
        raise SettingsError("--publish needs --output: the folder is what is published")
    budget = Budget(memory_mib, latency_ms)
    made = made_plan(
        rows_of(Recorded.open(recorded), rows),
        open_all(links),
        read_costs(costs),
        budget,
        method=cast("Any", method),  # `choose` checks it
        link_ms=link_ms,
    )
    found, console = made.plan, Console(as_json=as_json)
    report: dict[str, Any] = {
        "active": list(found.active),
        "predicted": {
            name: {"from": list(sources), "quality": found.quality[name]}
            for name, sources in found.predicted.items()
        },
        "expected_accuracy": found.expected_accuracy,
        "cost": dict(found.cost),
        "budget": dict(found.budget),
        "method": found.method,
    }
    console.say(f"run {', '.join(found.active) or 'no model'}")
    for name, sources in found.predicted.items():
        told = (
            f"from {', '.join(sources)}: {found.quality[name]:.3f}" if sources else "by nothing"
        )
        console.say(f"predict {name} {told}")
    for name, cost in found.cost.items():
        console.say(f"{name}: {cost:.3g} of {found.budget[name]:.3g}")
    console.say(f"expected accuracy {found.expected_accuracy:.3f}, chosen by {found.method}")
    if output is not None:
        made.save(output)
    if publish is not None and output is not None:
        settings = DeveloperSettings.load(config, home=home)
        developer = Developer(settings.home, settings=settings)
        done = developer.publish_plan(output, name=publish)
        console.say(
            f"published plan {done.name} version {done.version}; devices get it by pull"
        )
        report["published"] = {"name": done.name, "version": done.version}
    console.report(report)


def library(
    network: Annotated[Path, typer.Argument(metavar="ONNX", help="A model in one file.")],
    name: Annotated[str, typer.Option(help="Of the model, as it was recorded.")],
    recorded: Annotated[Path, typer.Option(help="Recorded outputs, which know its output.")],
    costs: CostsOption,
    output: Annotated[Path, typer.Option("--output", "-o", help="A folder to publish.")],
    as_json: JsonOption = False,
) -> None:
    """Make a model for the edge of an ONNX file, to publish for plans to choose from."""
    from triparty.common.edge_models import EdgeModel
    from triparty.common.errors import SettingsError
    from triparty.common.links.planning.costs import read_costs
    from triparty.common.links.recorded import SPECS_FILE
    from triparty.common.links.specs import read_specs

    specs, known = read_specs(recorded / SPECS_FILE), read_costs(costs)
    if name not in specs or name not in known:
        where = recorded if name not in specs else costs
        raise SettingsError(f"{where} does not know the model '{name}'")
    EdgeModel(specs[name], known[name]).save(network, output)
    console = Console(as_json=as_json)
    console.say(f"made {output}; next: triparty developer publish {output} --name {name}")
    console.report({"model": name, "output": str(output)})
