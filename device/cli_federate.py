"""`triparty device federate`: key, join."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from triparty.common.console import Console, JsonOption
from triparty.common.errors import SettingsError

if TYPE_CHECKING:
    from triparty.common.federation import Call
    from triparty.device.federation.supernode import Site

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="Train links with other sites; recorded outputs stay on this device.",
)

CallArgument = Annotated[
    Path, typer.Argument(metavar="CALL", help="The developer's call.json.")
]
HomeOption = Annotated[
    Path | None,
    typer.Option(
        "--home", help="This device's folder (default: ~/.local/share/triparty/device)."
    ),
]
ConfigOption = Annotated[Path | None, typer.Option("--config", help="Settings as a TOML file.")]


@app.command()
def key(
    call: CallArgument,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Also write the key to a file.")
    ] = None,
    home: HomeOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show this site's public key for a federation; send it to the developer."""
    site, wanted = _site(call, home, config)
    public = site.public_key().decode()
    if output is not None:
        from triparty.common.files import write_atomic

        write_atomic(output, public.encode() + b"\n")
    console = Console(as_json=as_json)
    console.say(public)
    console.report({"federation": wanted.name, "public_key": public})


@app.command()
def join(
    call: CallArgument,
    data: Annotated[
        Path, typer.Option(help="Recorded outputs of this site: a folder with specs.json.")
    ],
    port: Annotated[
        int, typer.Option(min=1, max=65535, help="Of loopback, for Flower's own use.")
    ] = 9094,
    home: HomeOption = None,
    config: ConfigOption = None,
) -> None:
    """Take part in a federation until stopped.

    Runs Flower's SuperNode. A SuperNode runs code that its SuperLink names: this one takes only
    an app that the key in CALL signed, which names triparty's own code and holds none itself.
    What leaves are weights of links, how many rows were trained on, and the loss.
    """
    from triparty.common.links.recorded import Recorded

    site, wanted = _site(call, home, config)
    rows = len(Recorded.open(data))
    console = Console(as_json=False)
    console.say(
        f"joining '{wanted.name}' at {wanted.superlink} with {rows} rows of {data}; Ctrl-C ends"
    )
    console.say(f"only apps signed by this key run here: {wanted.signer}")
    console.say(f"log: {site.folder / 'supernode.log'}")
    site.join(wanted, data, port=port)


def _site(call: Path, home: Path | None, config: Path | None) -> tuple[Site, Call]:
    from triparty.common.federation import Call
    from triparty.device.federation.supernode import Site
    from triparty.device.settings import DeviceSettings

    try:
        wanted = Call.from_bytes(call.read_bytes())
    except OSError as error:
        raise SettingsError(f"cannot read {call}: {error.strerror}") from error
    settings = DeviceSettings.load(config, home=home)
    return Site(settings.home / "federations" / wanted.name), wanted
