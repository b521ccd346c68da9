"""`triparty device describe`: a text about an image, by a protected model that sees."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from triparty.common.console import Console, JsonOption
from triparty.device.cli_shields import (
    DecoyKind,
    Decoys,
    DecoyTexts,
    LengthBlock,
    Noise,
    Rounding,
)


def describe(
    model: Annotated[str, typer.Argument(help="Name of a model that takes images in texts.")],
    image: Annotated[Path, typer.Argument(help="A file; its pixels leave the device keyed.")],
    prompt: Annotated[
        str,
        typer.Argument(
            help="What is asked about it, not sent as such; '-' reads it from standard input, "
            "out of the list of processes."
        ),
    ] = "What is in this image?",
    max_tokens: Annotated[int, typer.Option(help="Most tokens to generate.")] = 128,
    temperature: Annotated[float, typer.Option(help="0 takes the likeliest token.")] = 0.0,
    top_k: Annotated[int, typer.Option(help="Draw among the k likeliest; 0: all.")] = 0,
    top_p: Annotated[float, typer.Option(help="Draw among the likeliest with this sum.")] = 1.0,
    seed: Annotated[int | None, typer.Option(help="Repeats the draws.")] = None,
    stop: Annotated[
        list[str] | None, typer.Option(help="End before this text; may be given again.")
    ] = None,
    deadline: Annotated[
        float | None,
        typer.Option(
            help="Seconds in which the whole answer has to be there; ending its session may "
            "take 2 more."
        ),
    ] = None,
    speculate: Annotated[
        int, typer.Option(help="Guess up to this many tokens ahead in a step.")
    ] = 0,
    draft: Annotated[
        Path | None,
        typer.Option(help="Folder of a small model that guesses; needs triparty\\[draft]."),
    ] = None,
    noise: Noise = None,
    bfloat16_rows: Rounding = None,
    length_block: LengthBlock = None,
    decoys: Decoys = None,
    decoy_texts: DecoyTexts = None,
    decoy_kind: DecoyKind = None,
    home: Annotated[Path | None, typer.Option("--home", help="This device's folder.")] = None,
    config: Annotated[Path | None, typer.Option("--config", help="Settings as TOML.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Ask a protected model about an image; the answer streams as it comes.

    Rows of a text with an image are rounded and sent in blocks like those of any text. Noise
    and decoys are refused: the pixels get no noise, and a decoy has no image.
    """
    from triparty.device.cli_chat import chosen_draft
    from triparty.device.inference.generation import Generation
    from triparty.device.inference.options import GenerationOptions
    from triparty.device.settings import DeviceSettings

    device = DeviceSettings.load(
        config,
        home=home,
        noise=noise,
        bfloat16_rows=bfloat16_rows,
        length_block=length_block,
        decoys=decoys,
        decoy_texts=decoy_texts,
        decoy_kind=decoy_kind,
    ).device()
    options = GenerationOptions(
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        seed=seed,
        max_tokens=max_tokens,
        stop=stop or (),
        deadline_s=deadline,
        speculate=speculate,
        draft=chosen_draft(device, model, draft),
    )
    if prompt == "-":
        prompt = sys.stdin.buffer.read().decode("utf-8", "replace").rstrip("\n")
    console = Console(as_json=as_json)
    for part in device.stream(model, prompt, image=image, options=options):
        if isinstance(part, Generation):
            console.say("")
            console.report(asdict(part))
        else:
            console.write(part.text)
