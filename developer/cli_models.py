"""The developer's commands on models.

protect and the examples here; verify, audit and protect-adapter in files of their own.
"""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from triparty.common.console import Console, JsonOption
from triparty.developer.cli_adapters import protect_adapter
from triparty.developer.cli_arguments import SourceArgument
from triparty.developer.cli_audit import audit
from triparty.developer.cli_verify import verify


def add_commands(app: typer.Typer) -> None:
    """Adds the commands of this module to the developer's."""
    app.command("protect")(protect)
    app.command("protect-adapter")(protect_adapter)
    app.command("verify")(verify)
    app.command("audit")(audit)
    app.command("example-model")(example_model)
    app.command("example-detector")(example_detector)
    app.command("example-encoder")(example_encoder)


def protect(
    source: SourceArgument,
    out: Annotated[Path, typer.Argument(metavar="OUT", help="A folder to be made.")],
    scheme: Annotated[
        str, typer.Option(help="permutation, or orthogonal: the largest exact group.")
    ] = "permutation",
    interface: Annotated[
        str, typer.Option(help="What travels: embeddings (keyed rows) or tokens (keyed ids).")
    ] = "embeddings",
    norms: Annotated[
        str, typer.Option(help="fold norm weights into their readers, or keep them.")
    ] = "fold",
    expand: Annotated[
        int | None, typer.Option(min=1, help="Width to expand the residual to (orthogonal).")
    ] = None,
    head_scales: Annotated[
        bool, typer.Option("--head-scales", help="Scale logits; only devices can undo it.")
    ] = False,
    head: Annotated[
        str, typer.Option(help="Who makes logits: cloud, or device (the cloud has none then).")
    ] = "cloud",
    seed: Annotated[
        int | None, typer.Option(help="Guessable keys, for reproducible tests only.")
    ] = None,
    restart: Annotated[
        bool, typer.Option("--restart", help="Discard what a killed run left; begin anew.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print plan, size and time; write nothing.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Re-key a model: OUT/model for the cloud, OUT/device for devices, OUT/secrets for you.

    The result computes what the original does, for devices that have OUT/device.

    A run that was killed goes on where it stopped if it is repeated.

    It is re-keying, not encryption: see `audit`.
    """
    from triparty.developer.protect import Choices, survey
    from triparty.developer.protect import protect as compile_model
    from triparty.developer.protect.compiler import written_bytes
    from triparty.developer.protect.description import lines, summary
    from triparty.developer.protect.estimate import estimated_seconds

    console = Console(as_json=as_json)
    choices = Choices.of(
        scheme=scheme,
        interface=interface,
        norms=norms,
        expand=expand,
        head_scales=head_scales,
        head=head,
    )
    if dry_run:
        found = survey(source, choices)
        for line in lines(found):
            console.say(line)
        size, seconds = written_bytes(found), estimated_seconds(found)
        console.say(
            f"It would write {size / 1e6:,.1f} MB in about {_duration(seconds)}: an estimate, "
            f"from a small sample on this machine, without waiting for the disk."
        )
        console.say("Nothing was written (--dry-run).")
        estimated = {"written_bytes": size, "estimated_seconds": float(f"{seconds:.3g}")}
        console.report({**summary(found), **estimated, "written": False})
        return
    if seed is not None:
        typer.echo(
            "triparty: warning: --seed makes keys that anybody can guess; use it for "
            "reproducible tests, never for a model in service",
            err=True,
        )
    started = time.perf_counter()
    found = compile_model(source, out, choices=choices, seed=seed, restart=restart)
    seconds = round(time.perf_counter() - started, 3)
    facts = summary(found)
    console.say(
        f"Protected {facts['tensors']} tensors ({facts['size_bytes'] / 1e6:,.1f} MB) of a "
        f"{facts['family']} model in {seconds:.1f} s.\n"
        f"  {out / 'model'}    for the cloud\n"
        f"  {out / 'device'}   for devices\n"
        f"  {out / 'secrets'}  for you alone: back it up, never publish it"
    )
    if facts["left_out"]:
        console.say(f"Left out of config.json: {', '.join(facts['left_out'])}")
    for note in facts["notes"]:
        console.say(note)
    console.report({**facts, "written": True, "out": str(out), "seconds": seconds})


def _duration(seconds: float) -> str:
    """A time for people."""
    if seconds < 100:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def example_model(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="A folder to be made.")],
    seconds: Annotated[
        float, typer.Option(min=1, max=36000, help="Time for the training.")
    ] = 60,
    as_json: JsonOption = False,
) -> None:
    """Train a small LLaMA on Python's own documentation, to try things with."""
    from triparty.developer.example_model import make_example_model

    console = Console(as_json=as_json)
    trained = make_example_model(out, seconds=seconds)
    console.say(
        f"Trained {trained.parameters / 1e6:.1f} M weights for {trained.seconds:.0f} s "
        f"({trained.steps} steps) on {trained.text_bytes / 1e3:.0f} KB of text: loss "
        f"{trained.loss:.2f} on held-out text. Try: triparty developer protect {out} protected"
    )
    console.report({"out": str(out), **asdict(trained)})


def example_detector(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="An ONNX file to be made.")],
    steps: Annotated[int, typer.Option(min=1, max=100_000, help="Batches to train on.")] = 300,
    as_json: JsonOption = False,
) -> None:
    """Train a small detector on generated scenes of people and cars, to try things with."""
    from triparty.developer.example_detector import make_example_detector

    console = Console(as_json=as_json)
    trained = make_example_detector(out, steps=steps)
    console.say(
        f"Trained {trained.parameters / 1e3:.0f} thousand weights for {trained.seconds:.0f} s "
        f"({trained.steps} steps). It finds what generated films show, nothing real."
    )
    console.report({"out": str(out), **asdict(trained)})


def example_encoder(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="A folder to be made.")],
    steps: Annotated[int, typer.Option(min=1, max=100_000, help="Batches to train on.")] = 350,
    as_json: JsonOption = False,
) -> None:
    """Train a small sentence encoder on generated questions about a building."""
    from triparty.developer.example_encoder import make_example_encoder

    console = Console(as_json=as_json)
    trained = make_example_encoder(out, steps=steps)
    console.say(
        f"Trained {trained.parameters / 1e3:.0f} thousand weights for {trained.seconds:.0f} s "
        f"({trained.steps} steps). It knows a building's words, no others."
    )
    console.report({"out": str(out), **asdict(trained)})
