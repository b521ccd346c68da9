"""`triparty device page`: the password of the gateway's web page."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from triparty.common.console import Console, JsonOption

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="The web page of 'watch': its password.",
)


@app.callback()
def _group() -> None:
    """Keeps `password` a command of its own, although there is no other."""


@app.command()
def password(
    config: Annotated[Path, typer.Argument(help="TOML of 'triparty device watch'.")],
    make: Annotated[
        bool, typer.Option("--make", help="Make one and print it, instead of asking for one.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Set the password of the page; whoever is logged in stays so.

    Asks for it twice on a terminal; otherwise it is the first line of standard input.
    """
    from triparty.common.errors import SettingsError
    from triparty.common.pages.passwords import PasswordHash, new_password
    from triparty.device.gateway.settings import WatchSettings

    settings = WatchSettings.load(config)
    if settings.page is None:
        raise SettingsError(f"{config} shows no page: give it a table [page]")
    chosen = new_password() if make else _asked()
    file = settings.folder / settings.page.password_file
    PasswordHash.of(chosen).write(file)
    console = Console(as_json=as_json)
    if make:
        console.say(chosen)
    console.say(f"kept as its hash in {file}")
    console.report({"file": str(file), **({"password": chosen} if make else {})})


def _asked() -> str:
    if sys.stdin.isatty():
        return str(typer.prompt("password", hide_input=True, confirmation_prompt=True))
    return sys.stdin.readline().rstrip("\r\n")
