"""`triparty device serve`: protected models behind OpenAI's API, on this machine."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

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

if TYPE_CHECKING:
    from triparty.device.inference.draft_model import DraftModel


def serve(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0: any free one.")] = 8765,
    allow_host: Annotated[
        list[str] | None, typer.Option(help="A name of this machine; may be given again.")
    ] = None,
    allow_origin: Annotated[
        list[str] | None,
        typer.Option(help="Web pages that may ask, as https://chat.example; may be repeated."),
    ] = None,
    keep_chats: Annotated[
        int,
        typer.Option(
            help="Chats whose sessions stay open, so that the next request sends what is new "
            "alone; 0 keeps none."
        ),
    ] = 4,
    speculate: Annotated[
        int,
        typer.Option(
            help="Guess up to this many tokens ahead in a step: the same answers in fewer "
            "round trips."
        ),
    ] = 0,
    draft: Annotated[
        Path | None,
        typer.Option(
            help="Folder of a small model that guesses for models with the same tokenizer. "
            "Needs triparty\\[draft]."
        ),
    ] = None,
    deadline: Annotated[
        float | None,
        typer.Option(
            help="Seconds in which each answer has to be there; ending its session may take "
            "2 more."
        ),
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
    """Answer any OpenAI client with protected models, until stopped.

    Point the client at the printed URL. Its text is keyed on this machine; the cloud gets no
    word of it. An API key is asked for if TRIPARTY_DEVICE_API_KEY is set. How answers are drawn
    (temperature, top_p, seed, ...) is the client's to say.
    """
    from triparty.device.endpoint.answering import Answering
    from triparty.device.endpoint.server import Listening
    from triparty.device.endpoint.server import serve as run
    from triparty.device.settings import DeviceSettings

    settings = DeviceSettings.load(
        config,
        home=home,
        noise=noise,
        bfloat16_rows=bfloat16_rows,
        length_block=length_block,
        decoys=decoys,
        decoy_texts=decoy_texts,
        decoy_kind=decoy_kind,
    )
    if speculate:
        settings.shields().refuse_beside_guesses()
    answering = Answering(speculate, _draft(draft), deadline, keep_chats)
    device = settings.device()
    device.models()  # a home that is not enrolled is refused now
    listening = Listening(
        host, port, tuple(allow_host or ()), tuple(allow_origin or ()), settings.api_key
    )
    console = Console(as_json=as_json)
    if not listening.is_local:
        print(warning(listening.key), file=sys.stderr)  # noqa: T201 not the command's output

    def announce(url: str) -> None:
        console.write(f"serving {url}\n")
        console.report({"url": url})
        sys.stdout.flush()

    run(device, listening, answering, announce=announce)


def _draft(folder: Path | None) -> DraftModel | None:
    from triparty.device.inference.draft_model import DraftModel

    return None if folder is None else DraftModel.open(folder)


def warning(key: str | None) -> str:
    """What somebody gives away who listens on more than this machine."""
    who = "with the API key" if key else "(no API key is set: TRIPARTY_DEVICE_API_KEY)"
    return (
        f"warning: other machines that reach this address can ask {who}; prompts and answers "
        "cross the network in the clear, where everybody on the path can read them"
    )
