"""`triparty developer federate`: init, register, forget, run, status, export."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from triparty.common.console import Console, JsonOption, progress
from triparty.common.errors import SettingsError

if TYPE_CHECKING:
    from triparty.developer.federation.federation import Federation

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="Train links across sites, whose recorded outputs stay where they are.",
)

FolderArgument = Annotated[
    Path, typer.Argument(metavar="FOLDER", help="The federation's folder.")
]


@app.command()
def init(
    folder: FolderArgument,
    outputs: Annotated[
        Path,
        typer.Option(
            help="Recorded outputs of your own, a small sample: gives specs and scaling."
        ),
    ],
    link: Annotated[
        list[str], typer.Option(metavar="SOURCE:TARGET", help="A link; may be repeated.")
    ],
    address: Annotated[
        str, typer.Option(help="host:port of your SuperLink, as sites reach it.")
    ],
    rounds: Annotated[int, typer.Option(min=1)] = 10,
    epochs: Annotated[int, typer.Option(min=1, help="Passes at a site in a round.")] = 5,
    rate: Annotated[float, typer.Option(help="Learning rate.")] = 0.01,
    batch: Annotated[int, typer.Option(min=0, help="Rows of a step; 0 takes all.")] = 32,
    optimizer: Annotated[str, typer.Option(help="adam or sgd.")] = "adam",
    least_sites: Annotated[int, typer.Option(min=1, help="That a round needs.")] = 2,
    deadline: Annotated[float, typer.Option(help="Seconds of a round.")] = 600.0,
    wait: Annotated[float, typer.Option(help="Seconds for sites to connect.")] = 600.0,
    aggregation: Annotated[
        str, typer.Option(help="uniform, examples, median, trimmed or krum.")
    ] = "uniform",
    liars: Annotated[int, typer.Option(min=0, help="For trimmed and krum.")] = 1,
    largest_norm: Annotated[float, typer.Option(help="Of a site's change.")] = 1000.0,
    noise: Annotated[
        float | None, typer.Option(help="Differential privacy: noise, in clipping norms.")
    ] = None,
    clip: Annotated[float, typer.Option(help="L2 norm that updates are cut to.")] = 1.0,
    secure: Annotated[
        bool,
        typer.Option(
            "--secure", help="Only sums of all sites' weights are seen (SecAgg+); 3 sites."
        ),
    ] = False,
    seed: Annotated[int, typer.Option(min=0, help="Of first weights and orders.")] = 0,
    as_json: JsonOption = False,
) -> None:
    """Make a federation: keys, certificate, plan, first weights, and call.json for the sites.

    Algorithm 5.1 of the thesis as written: --optimizer sgd --batch 0 --epochs 1.
    """
    from datetime import UTC, datetime
    from typing import cast

    from triparty.common.federation import Task
    from triparty.common.links.recorded import Recorded
    from triparty.developer.federation.accounting import DELTA
    from triparty.developer.federation.beginning import first_links
    from triparty.developer.federation.plan import Aggregation, Plan, Privacy
    from triparty.developer.federation.service import start

    links, weights = first_links(Recorded.open(outputs), [_pair(one) for one in link], seed)
    plan = Plan(
        Task("", epochs=epochs, rate=rate, batch=batch, optimizer=optimizer, seed=seed),
        rounds=rounds,
        least_sites=least_sites,
        deadline_s=deadline,
        wait_s=wait,
        aggregation=cast(Aggregation, aggregation),
        liars=liars,
        largest_norm=largest_norm,
        privacy=None if noise is None else Privacy(noise, clip),
        secure=secure,
    )
    made = start(folder, links, weights, plan, address=address, now=datetime.now(UTC))
    console = Console(as_json=as_json)
    console.say(f"made {folder}; send {made.path('call.json')} to your sites")
    console.say("each answers with its key: triparty developer federate register")
    privacy = _privacy(made, DELTA, console, rounds=rounds)
    told = {"folder": str(folder), "call": str(made.path("call.json")), "privacy": privacy}
    console.report(told)


@app.command()
def register(
    folder: FolderArgument,
    name: Annotated[str, typer.Argument(help="What the journal calls the site.")],
    key: Annotated[Path, typer.Argument(help="Its public key, from 'device federate key'.")],
    as_json: JsonOption = False,
) -> None:
    """Let a site join."""
    from triparty.developer.federation.federation import Federation

    try:
        public = key.read_bytes()
    except OSError as error:
        raise SettingsError(f"cannot read {key}: {error.strerror}") from error
    federation = Federation(folder)
    federation.plan()
    federation.register(name, public)
    console = Console(as_json=as_json)
    console.say(f"{name} may join, from the next run on")
    console.report({"sites": list(federation.sites())})


@app.command()
def forget(
    folder: FolderArgument,
    name: Annotated[str, typer.Argument(help="Of the site.")],
    as_json: JsonOption = False,
) -> None:
    """Take a site's leave to join, from the next run on."""
    from triparty.developer.federation.federation import Federation

    federation = Federation(folder)
    federation.forget(name)
    console = Console(as_json=as_json)
    console.say(f"{name} may not join any more")
    console.report({"sites": list(federation.sites())})


@app.command()
def run(
    folder: FolderArgument,
    host: Annotated[str, typer.Option(help="Address to listen at.")] = "127.0.0.1",
    as_json: JsonOption = False,
) -> None:
    """Run the rounds that are left; after a crash the same command goes on."""
    from datetime import UTC, datetime

    from triparty.developer.federation.accounting import DELTA
    from triparty.developer.federation.federation import Federation
    from triparty.developer.federation.service import run as run_rounds

    federation, console = Federation(folder), Console(as_json=as_json)
    with progress("rounds", federation.plan().rounds) as advance:

        def tell(event: dict[str, Any]) -> None:
            if event["event"] in ("round", "in-vain"):
                advance(1, note=f"round {event['round']}")
            for line in _lines(event):
                console.say(line)

        done = run_rounds(federation, host=host, now=datetime.now(UTC), on_event=tell)
    console.say(f"round {done.round} of {done.rounds} is done")
    privacy = _privacy(federation, DELTA, console)
    console.say(f"next: triparty developer federate export {folder} OUT")
    console.report(asdict(done) | {"privacy": privacy})


@app.command()
def status(
    folder: FolderArgument,
    delta: Annotated[
        float, typer.Option(help="Of differential privacy; below one part in the sites.")
    ] = 1e-5,
    as_json: JsonOption = False,
) -> None:
    """Show how far a federation is, who was left out of what and why, and epsilon."""
    from triparty.developer.federation.federation import Federation
    from triparty.developer.federation.service import outcome

    federation, console = Federation(folder), Console(as_json=as_json)
    events = federation.journal().events()
    done = outcome(federation, events)
    console.say(f"round {done.round} of {done.rounds}; sites: {', '.join(federation.sites())}")
    for event in events:
        for line in _lines(event):
            console.say(line)
    privacy = _privacy(federation, delta, console)
    sites = list(federation.sites())
    console.report(asdict(done) | {"sites": sites, "privacy": privacy, "events": events})


@app.command()
def export(
    folder: FolderArgument,
    out: Annotated[Path, typer.Argument(help="Gets a folder for each target.")],
    test: Annotated[
        Path | None,
        typer.Option(help="Recorded outputs of your own: measures agreement on them."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Write the trained links as folders that 'triparty developer publish' takes."""
    from triparty.common.links.folder import save_links
    from triparty.common.links.recorded import Recorded
    from triparty.developer.federation.export import ensembles
    from triparty.developer.federation.federation import Federation
    from triparty.developer.federation.service import trained_links

    recorded = None if test is None else Recorded.open(test)
    console, written = Console(as_json=as_json), []
    for made in ensembles(trained_links(Federation(folder)), recorded):
        save_links(made, out / made.name)
        told = "" if recorded is None else f", agreement {made.expected:.1%}"
        console.say(f"wrote {out / made.name}: from {', '.join(made.sources)}{told}")
        written.append({"target": made.name, "sources": list(made.sources)})
    console.say(f"next: triparty developer publish {out}/TARGET")
    console.report({"out": str(out), "links": written})


def _privacy(
    federation: Federation, delta: float, console: Console, *, rounds: int | None = None
) -> dict[str, Any] | None:
    """Tells what rounds guarantee a site: those that were published, or so many."""
    from triparty.developer.federation.accounting import spent

    events = federation.journal().events()
    published = sum(event["event"] == "round" for event in events)
    found = spent(federation.plan(), published if rounds is None else rounds, delta=delta)
    if found is None:
        return None
    console.say(
        f"privacy of a site's rows in the links of {found.rounds} rounds: epsilon "
        f"{found.epsilon:.3g} at delta {found.delta:g}"
    )
    return asdict(found)


def _lines(event: dict[str, Any]) -> list[str]:
    """What people are told of an event of the journal."""
    match event["event"]:
        case "round":
            head = f"round {event['round']}: {', '.join(event['sites'])}"
            lines = [f"{head}; loss {event['loss']:.4f}" if "loss" in event else head]
        case "in-vain":
            lines = [f"round {event['round']}: too few answers, nothing changed"]
        case "stopped":
            return [f"stopped: {event['reason']}"]
        case _:
            return []
    return lines + [f"  left out: {name}: {why}" for name, why in event["left_out"].items()]


def _pair(text: str) -> tuple[str, str]:
    source, colon, target = text.partition(":")
    if not (source and colon and target):
        raise SettingsError(f"--link: expected SOURCE:TARGET, got {text!r:.80}")
    return source, target
