"""`triparty device serve`: protected models behind OpenAI's API, on this machine."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from triparty.common.console import Console, JsonOption


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
    home: Annotated[Path | None, typer.Option("--home", help="This device's folder.")] = None,
    config: Annotated[Path | None, typer.Option("--config", help="Settings as TOML.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Answer any OpenAI client with protected models, until stopped.

    Point the client at the printed URL. Its text is keyed on this machine; the cloud gets no
    word of it. An API key is asked for if TRIPARTY_DEVICE_API_KEY is set.
    """
    from triparty.device.endpoint.server import Listening
    from triparty.device.endpoint.server import serve as run
    from triparty.device.settings import DeviceSettings

    settings = DeviceSettings.load(config, home=home)
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

    run(device, listening, announce=announce)


def warning(key: str | None) -> str:
    """What somebody gives away who listens on more than this machine."""
    who = "with the API key" if key else "(no API key is set: TRIPARTY_DEVICE_API_KEY)"
    return (
        f"warning: other machines that reach this address can ask {who}; prompts and answers "
        "cross the network in the clear, where everybody on the path can read them"
    )
