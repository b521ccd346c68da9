"""`triparty developer`: models (`cli_models`), and accounts: who may use what."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from triparty.common.console import Console, JsonOption
from triparty.developer.cli_models import OutArgument, add_commands

if TYPE_CHECKING:
    from triparty.developer.home import Home
    from triparty.developer.publish import Publication
    from triparty.developer.settings import DeveloperSettings

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    help="Re-key a model, publish it, invite devices (P1).",
)
add_commands(app)

HomeOption = Annotated[
    Path | None,
    typer.Option(
        "--home", help="Your keys and records [default: ~/.local/share/triparty/developer]."
    ),
]
ConfigOption = Annotated[Path | None, typer.Option("--config", help="Settings as a TOML file.")]


@app.command()
def init(
    home: HomeOption = None, config: ConfigOption = None, as_json: JsonOption = False
) -> None:
    """Make your root and publishing keys.

    A passphrase for the private keys is taken from TRIPARTY_DEVELOPER_PASSPHRASE.
    """
    place, settings = _open(home, config)
    delegation = place.make_keys(key_days=settings.key_days, now=_now())
    console = Console(as_json=as_json)
    console.say(f"root key: {delegation.developer}")
    console.say(f"kept in {place.folder / 'keys'}: back up root.key and move it offline")
    console.report({"developer": delegation.developer, "home": str(place.folder)})


@app.command()
def enroll(
    cloud: Annotated[str, typer.Option(help="URL of the cloud; must be the invite's.")],
    invite: Annotated[
        str, typer.Option(help="The operator's code; '-' reads it from standard input.")
    ],
    name: Annotated[str, typer.Option(help="What the operator sees.")] = "developer",
    home: HomeOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Turn an operator's invite into your account on a cloud."""
    from triparty.common.access import read_code
    from triparty.developer.enroll import enroll as enroll_developer

    place, settings = _open(home, config)
    access = enroll_developer(
        place,
        read_code(invite),
        cloud=cloud,
        name=name,
        latest_days=settings.latest_days,
        now=_now(),
    )
    console = Console(as_json=as_json)
    console.say(f"enrolled with {access.url}")
    console.report({"developer": access.developer, "url": access.url})


@app.command()
def publish(
    out: OutArgument,
    name: Annotated[
        str | None, typer.Option(help="Name on the cloud [default: the folder's name].")
    ] = None,
    home: HomeOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Upload a protected model; devices that hold the name get new bundles."""
    from triparty.developer.publish import publish_model

    place, settings = _open(home, config)
    done = publish_model(
        place, out, name=name or out.resolve().name, settings=settings, now=_now()
    )
    _say_published(Console(as_json=as_json), done)


@app.command()
def invite(
    name: Annotated[
        str, typer.Option(help="What you call the device; the cloud sees it too.")
    ] = "device",
    days: Annotated[int, typer.Option(min=1, max=90, help="How long the code works.")] = 7,
    home: HomeOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Print a code with which one device can enrol; pass it on privately."""
    from triparty.developer.invite import invite_device

    place, _ = _open(home, config)
    code, expires = invite_device(place, label=name, days=days, now=_now())
    console = Console(as_json=as_json)
    console.say(code)
    console.say(f"works once, until {expires}; whoever has it can enrol in the device's place")
    console.report({"invite": code, "expires": expires})


@app.command()
def grant(
    devices: Annotated[
        list[str], typer.Argument(metavar="DEVICE...", help="Names, ids, or how ids begin.")
    ],
    model: Annotated[str | None, typer.Option(help="One model [default: all].")] = None,
    home: HomeOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Seal the bundle of published models to devices, after checking their keys."""
    from triparty.developer.grant import find_device, grant_model, models_to_grant

    place, settings = _open(home, config)
    models = models_to_grant(place, model)
    console = Console(as_json=as_json)
    granted = []
    with place.access().client() as client:
        found = [find_device(place, client, device) for device in devices]
        for device in found:
            for published in models:
                done = grant_model(
                    place, client, published, device, settings=settings, now=_now()
                )
                what = "granted" if done.is_new else "has already"
                console.say(f"{done.name}: {what} {done.model} version {done.version}")
                granted.append(asdict(done))
    console.report({"granted": granted})


@app.command()
def revoke(
    device: Annotated[str, typer.Argument(help="Name, id, or how the id begins.")],
    home: HomeOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Take a device's access back; its sessions end at once."""
    from triparty.developer.grant import find_device

    place, _ = _open(home, config)
    with place.access().client() as client:
        found = find_device(place, client, device)
        client.revoke_device(found.id)
    shared = [model.name for model in place.models() if found.id in model.devices]
    console = Console(as_json=as_json)
    console.say(f"revoked {found.name} ({found.id})")
    for name in shared:
        console.say(
            f"it keeps the bundle of '{name}' that it has, and with it the key of everybody "
            f"who shares it: run 'triparty developer rotate {name}'"
        )
    console.report({"device": found.id, "name": found.name, "rotate": shared})


@app.command()
def rotate(
    model: Annotated[str, typer.Argument(help="Name of a published model.")],
    source: Annotated[
        str | None, typer.Option(help="The original [default: what it was protected from].")
    ] = None,
    home: HomeOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Begin a new key epoch of a model: new keys, new bundles, earlier versions revoked.

    Traffic recorded in the epoch before stays readable for whoever has a bundle of it.
    """
    from triparty.developer.rotate import rotate as rotate_model

    place, settings = _open(home, config)
    done = rotate_model(place, model, source=source, settings=settings, now=_now())
    _say_published(Console(as_json=as_json), done)


@app.command()
def status(
    home: HomeOption = None, config: ConfigOption = None, as_json: JsonOption = False
) -> None:
    """Show devices and models, and renew the latest statement."""
    from triparty.common.documents import format_time
    from triparty.developer.statements import renew_latest

    place, settings = _open(home, config)
    access = place.access()
    with access.client() as client:
        latest = renew_latest(place, client, now=_now(), days=settings.latest_days)
        devices = client.devices()
    models = place.models()
    console = Console(as_json=as_json)
    console.say(f"cloud {access.url}, developer {access.developer}")
    for model in models:
        console.say(
            f"model  {model.name}  version {model.version}, epoch {model.epoch}, "
            f"{len(model.devices)} bundles, from {model.out}"
        )
    for device in devices:
        state = "revoked" if device.is_revoked else "enrolled"
        label = place.label(device.invite) or "?"
        console.say(f"device {label} ({device.name})  {state} {device.created}  {device.id}")
    console.say(f"latest statement renewed, counts until {format_time(latest.expires)}")
    console.report(
        {
            "url": access.url,
            "developer": access.developer,
            "models": [asdict(model) for model in models],
            "devices": [
                {
                    "id": device.id,
                    "invited_as": place.label(device.invite),
                    "name": device.name,
                    "created": device.created,
                    "revoked": device.is_revoked,
                }
                for device in devices
            ],
            "latest_expires": format_time(latest.expires),
        }
    )


def _say_published(console: Console, done: Publication) -> None:
    model = done.model
    console.say(
        f"published {model.name} version {model.version}, epoch {model.epoch} "
        f"({done.size_bytes / 1e6:,.1f} MB)"
    )
    for granted in done.granted:
        console.say(f"{granted.name}: new bundle; it must run 'triparty device pull'")
    document: dict[str, Any] = {
        "name": model.name,
        "version": model.version,
        "epoch": model.epoch,
        "size_bytes": done.size_bytes,
        "granted": [asdict(granted) for granted in done.granted],
    }
    console.report(document)


def _open(home: Path | None, config: Path | None) -> tuple[Home, DeveloperSettings]:
    from triparty.developer.home import Home
    from triparty.developer.settings import DeveloperSettings

    settings = DeveloperSettings.load(config, home=home)
    return Home(settings.home, passphrase=settings.passphrase), settings


def _now() -> datetime:
    return datetime.now(UTC)
