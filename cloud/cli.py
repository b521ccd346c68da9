"""`triparty cloud`: its operator's commands; `store_cli` has those on stored data."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from triparty.cloud.store_cli import DataOption, backup, check, restore
from triparty.common.console import Console, JsonOption
from triparty.common.errors import SettingsError

if TYPE_CHECKING:
    from triparty.cloud.desk import Desk

TOKEN_VARIABLE = "TRIPARTY_CLOUD_OPERATOR_TOKEN"  # noqa: S105  the name, not the token

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="Serve re-keyed models (P2).",
)

MaybeDataOption = Annotated[
    Path | None,
    typer.Option(
        "--data",
        envvar="TRIPARTY_CLOUD_DATA",
        help="The data folder of a running cloud on this machine. Whoever can write its "
        "database is the operator: the command makes itself a token for one minute.",
    ),
]
UrlOption = Annotated[
    str | None,
    typer.Option(help=f"A cloud on another machine; its token is in {TOKEN_VARIABLE}."),
]
PinOption = Annotated[
    str | None, typer.Option(help="SHA-256 of that cloud's certificate, as init printed it.")
]
DatabaseOption = Annotated[
    str | None,
    typer.Option(
        help="SQLAlchemy URL, as postgresql+psycopg://USER@HOST/NAME; default: SQLite in the "
        "data folder."
    ),
]


@app.command()
def init(
    data: DataOption,
    url: Annotated[
        str | None, typer.Option(help="How others reach this cloud; goes into invites.")
    ] = None,
    host: Annotated[str | None, typer.Option(help="Address to serve on.")] = None,
    port: Annotated[
        int | None, typer.Option(help="Port to serve on (default: the URL's, or 8443).")
    ] = None,
    database: DatabaseOption = None,
    self_signed: Annotated[
        bool, typer.Option("--self-signed", help="Make a TLS certificate for clients to pin.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Make a data folder and print its one operator token."""
    from triparty.cloud.initialise import initialise
    from triparty.cloud.state import utc_now

    made = initialise(
        data,
        url=url,
        host=host,
        port=port,
        database=database,
        self_signed=self_signed,
        now=utc_now(),
    )
    console = Console(as_json=as_json)
    console.say(f"operator token (shown once): {made.token}")
    if made.pin:
        console.say(f"certificate pin: {made.pin}")
    console.say(f"next: triparty cloud serve --data {data}")
    console.report(
        {"token": made.token, "url": made.url, "pin": made.pin, "data": str(made.data)}
    )


@app.command("renew-certificate")
def renew_certificate(data: DataOption, as_json: JsonOption = False) -> None:
    """Make another self-signed certificate; start the cloud again to show it.

    Tell its pin to everybody who uses the cloud, outside of it: they run 'trust --pin'.
    """
    from triparty.cloud.initialise import renew_certificate as renew
    from triparty.cloud.state import utc_now

    pin = renew(data, now=utc_now())
    console = Console(as_json=as_json)
    console.say(f"certificate pin: {pin}")
    console.say("next: start the cloud again, and tell the pin to its users by another way")
    console.report({"pin": pin})


@app.command()
def serve(
    data: DataOption,
    host: Annotated[str | None, typer.Option(help="Default: 127.0.0.1.")] = None,
    port: Annotated[int | None, typer.Option(help="Default: 8443; 0: any free one.")] = None,
    database: DatabaseOption = None,
    blobs: Annotated[
        str | None, typer.Option(help="Folder of blobs, or s3://BUCKET/PREFIX.")
    ] = None,
    engine: Annotated[str | None, typer.Option(help="local or ray.")] = None,
    cert: Annotated[Path | None, typer.Option(help="TLS certificate chain, PEM.")] = None,
    key: Annotated[Path | None, typer.Option(help="Its private key, PEM.")] = None,
    insecure_no_tls: Annotated[
        bool,
        typer.Option(
            "--insecure-no-tls",
            help="Serve other machines in the clear: everyone on the path can read and use "
            "tokens, read rows and replies, and change them.",
        ),
    ] = False,
    memory: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE", help="Most memory of models and sessions together, as 24GiB."
        ),
    ] = None,
    completions_upstream: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="A stock engine that answers completions of models of the interface tokens. "
            "Its key: TRIPARTY_CLOUD_COMPLETIONS_UPSTREAM_KEY.",
        ),
    ] = None,
    trace: Annotated[
        Path | None, typer.Option(help="Write every row that arrives here, for the audit.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Serve until stopped; says 'serving URL' once connections are accepted."""
    import logging

    from triparty.cloud import server
    from triparty.cloud.settings import load_settings
    from triparty.common.telemetry import log_to

    settings = load_settings(
        data,
        host=host,
        port=port,
        database=database,
        blobs=blobs,
        engine=engine,
        cert=cert,
        key=key,
        max_memory_bytes=memory,
        completions_upstream=completions_upstream,
        trace=trace,
    )
    console = Console(as_json=as_json)

    def announce(ready: server.Ready) -> None:
        console.write(f"serving {ready.url}\n")
        console.report({"url": ready.url, "pin": ready.pin})

    log_to()
    logging.getLogger("alembic").setLevel(logging.WARNING)
    server.serve(settings, allow_insecure=insecure_no_tls, announce=announce)


@app.command()
def invite(
    data: MaybeDataOption = None,
    url: UrlOption = None,
    pin: PinOption = None,
    days: Annotated[float, typer.Option(min=0.001, max=365, help="How long it works.")] = 7,
    name: Annotated[str, typer.Option(help="A name for your own list.")] = "developer",
    as_json: JsonOption = False,
) -> None:
    """Invite a developer; the code is a secret, made on this machine."""
    from triparty.cloud.desk import check_invite_url

    console = Console(as_json=as_json)
    with _desk(data, url, pin) as desk:
        check_invite_url(desk.url)
        made, expires = desk.invite_developer(label=name, days=days)
    code = made.to_code()
    console.say(code)
    console.report({"invite": code, "expires": expires, "url": desk.url, "pin": desk.pin})


@app.command()
def status(
    data: MaybeDataOption = None,
    url: UrlOption = None,
    pin: PinOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what a running cloud holds and does: accounts, models, sessions, blobs."""
    from triparty.cloud.overview import lines

    console = Console(as_json=as_json)
    with _desk(data, url, pin) as desk:
        counts = desk.status()
    for line in lines(counts):
        console.say(line)
    console.report(counts)


@app.command()
def developers(
    data: MaybeDataOption = None,
    url: UrlOption = None,
    pin: PinOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the developers of a running cloud."""
    console = Console(as_json=as_json)
    with _desk(data, url, pin) as desk:
        listed = desk.developers()
    for developer in listed:
        state = "revoked" if developer["revoked"] else f"{developer['devices']} devices"
        console.say(f"{developer['id']}  {developer['name']}  {state}")
    console.report({"developers": listed})


@app.command()
def revoke(
    developer: Annotated[
        str, typer.Argument(help="Its id, the beginning of its id, or its name.")
    ],
    data: MaybeDataOption = None,
    url: UrlOption = None,
    pin: PinOption = None,
    as_json: JsonOption = False,
) -> None:
    """Take a developer's access back, and its devices': tokens stop and sessions end at once.

    For good: the same root key is never let in again. What it published stays on the disk.
    """
    console = Console(as_json=as_json)
    with _desk(data, url, pin) as desk:
        revoked = desk.revoke(developer)
    console.say(f"revoked {revoked['name']} ({revoked['id']})")
    console.report({"developer": revoked["id"], "devices": revoked["devices"]})


@app.command()
def clean(
    data: MaybeDataOption = None,
    url: UrlOption = None,
    pin: PinOption = None,
    as_json: JsonOption = False,
) -> None:
    """Remove old uploads and blobs of no artifact now; a running cloud does so every hour."""
    console = Console(as_json=as_json)
    with _desk(data, url, pin) as desk:
        removed = desk.clean()
    for field, value in removed.items():
        console.say(f"{field:<12}{value}")
    console.report(removed)


for verb in (check, backup, restore):
    app.command()(verb)


@contextmanager
def _desk(data: Path | None, url: str | None, pin: str | None) -> Iterator[Desk]:
    from triparty.cloud import desk as desks

    if url is None and data is not None:
        with desks.desk_of_folder(data) as desk:
            yield desk
        return
    if url is None:
        raise SettingsError("which cloud? give --data DIR, or --url URL and --pin PIN")
    import os

    token = os.environ.get(TOKEN_VARIABLE)
    if not token:
        raise SettingsError(f"put the operator token into {TOKEN_VARIABLE}")
    with desks.desk_of_url(url, pin=pin, token=token) as desk:
        yield desk
