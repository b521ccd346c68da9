"""`triparty developer`: models (`cli_models`), and accounts: who may use what."""

from __future__ import annotations

import re
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from triparty.common.console import Console, JsonOption
from triparty.developer import cli_federate
from triparty.developer.cli_arguments import OutArgument
from triparty.developer.cli_links import app as links
from triparty.developer.cli_models import add_commands

if TYPE_CHECKING:
    from triparty.developer.account import Developer
    from triparty.developer.home import PublishedModel
    from triparty.developer.publish import Publication

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="Re-key a model, publish it, invite devices (P1).",
)
add_commands(app)
app.add_typer(cli_federate.app, name="federate")
app.add_typer(links, name="links")

HomeOption = Annotated[
    Path | None,
    typer.Option(
        "--home", help="Your keys and records (default: ~/.local/share/triparty/developer)."
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
    developer = _developer(home, config)
    fingerprint = developer.init()
    folder = developer.home.folder
    console = Console(as_json=as_json)
    console.say(f"root key: {fingerprint}")
    console.say(f"kept in {folder / 'keys'}: back up root.key and move it offline")
    console.report({"developer": fingerprint, "home": str(folder)})


@app.command()
def enroll(
    cloud: Annotated[str, typer.Option(help="URL of the cloud; must be the invite's.")],
    invite: Annotated[
        str, typer.Option(help="The operator's code; '-' reads it from standard input.")
    ],
    name: Annotated[str, typer.Option(help="What the operator sees.")] = "developer",
    again: Annotated[
        bool,
        typer.Option(
            "--again",
            help="This home is enrolled and its token expired or is lost: get a new one for "
            "the same account, with a new invite.",
        ),
    ] = False,
    home: HomeOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Turn an operator's invite into your account on a cloud; needs the root key."""
    from triparty.common.access import read_code

    access = _developer(home, config).enroll(
        read_code(invite), cloud=cloud, name=name, again=again
    )
    console = Console(as_json=as_json)
    console.say(f"enrolled with {access.url}")
    console.report({"developer": access.developer, "url": access.url})


@app.command()
def trust(
    pin: Annotated[
        str,
        typer.Option(help="SHA-256 of the cloud's new certificate, told by its operator."),
    ],
    home: HomeOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Trust the new certificate of your cloud, after its operator told you the fingerprint.

    Ask the operator (mail, telephone), not the cloud: the fingerprint is all that tells the
    cloud from somebody in its place.
    """
    _developer(home, config).trust(pin)
    console = Console(as_json=as_json)
    console.say("the new certificate is trusted from now on")
    console.report({"pin": pin.lower()})


@app.command()
def publish(
    out: OutArgument,
    name: Annotated[
        str | None, typer.Option(help="Name on the cloud (default: the folder's name).")
    ] = None,
    instances: Annotated[
        str | None,
        typer.Option(
            metavar="N|per-device|one-time",
            help="Keys among which devices are spread at random: N of them, one for each "
            "device, or one for each session (default: as before, at first 1).",
        ),
    ] = None,
    pool: Annotated[
        int, typer.Option(min=1, max=1000, help="One-time instances to add to the pool.")
    ] = 8,
    home: HomeOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Upload a protected model; devices that hold the name get new bundles.

    Or a gate, a filter or links, for all your devices: a folder with gate.json, filter.json or
    link.json.
    """
    from triparty.common.errors import SettingsError
    from triparty.common.filters import is_filter
    from triparty.common.gates import is_gate
    from triparty.common.links.folder import is_link
    from triparty.developer.instances import Instances

    console, developer = Console(as_json=as_json), _developer(home, config)
    wanted = Instances.of(instances, pool=pool) if instances is not None else None
    if wanted is not None and (is_gate(out) or is_filter(out) or is_link(out)):
        raise SettingsError(f"{out} is no model, it has no key: leave out --instances")
    if is_gate(out):
        gate = developer.publish_gate(out, name=name)
        console.say(
            f"published gate {gate.name} version {gate.version}; devices get it by pull"
        )
        console.report({"kind": "gate", **asdict(gate)})
    elif is_filter(out):
        made = developer.publish_filter(out, name=name)
        console.say(
            f"published filter {made.name} version {made.version}; devices get it by pull"
        )
        console.report({"kind": "filter", **asdict(made)})
    elif is_link(out):
        links = developer.publish_link(out, name=name)
        console.say(
            f"published links {links.name} version {links.version}; devices get them by pull"
        )
        console.report({"kind": "link", **asdict(links)})
    else:
        _say_published(console, developer.publish(out, name=name, instances=wanted))


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
    code, expires = _developer(home, config).invite(name=name, days=days)
    console = Console(as_json=as_json)
    console.say(code)
    console.say(f"works once, until {expires}; whoever has it can enrol in the device's place")
    console.report({"invite": code, "expires": expires})


@app.command()
def grant(
    devices: Annotated[
        list[str], typer.Argument(metavar="DEVICE...", help="Names, ids, or how ids begin.")
    ],
    model: Annotated[str | None, typer.Option(help="One model (default: all).")] = None,
    sessions: Annotated[
        int, typer.Option(min=1, max=1000, help="One-time instances that each device gets.")
    ] = 1,
    home: HomeOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Seal the bundle of published models to devices, after checking their keys."""
    granted = _developer(home, config).grant(*devices, model=model, sessions=sessions)
    console = Console(as_json=as_json)
    for done in granted:
        what = "granted" if done.is_new else "has already"
        console.say(f"{done.name}: {what} {done.model} version {done.version}")
    console.report({"granted": [asdict(done) for done in granted]})


@app.command()
def revoke(
    device: Annotated[str, typer.Argument(help="Name, id, or how the id begins.")],
    home: HomeOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Take a device's access back; its sessions end at once."""
    done = _developer(home, config).revoke(device)
    console = Console(as_json=as_json)
    console.say(f"revoked {done.name} ({done.device})")
    for name in done.shared:
        console.say(
            f"it keeps the bundle of '{name}' that it has, and with it the key of everybody "
            f"who shares it: run 'triparty developer rotate {name}'"
        )
    console.report({"device": done.device, "name": done.name, "rotate": list(done.shared)})


@app.command()
def rotate(
    model: Annotated[str, typer.Argument(help="Name of a published model.")],
    source: Annotated[
        str | None, typer.Option(help="The original (default: what it was protected from).")
    ] = None,
    drain: Annotated[
        str,
        typer.Option(
            metavar="TIME",
            help="How long open sessions may go on in the epoch before: 90s, 30m, 2h.",
        ),
    ] = "0s",
    home: HomeOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Begin a new key epoch of a model: new keys, new bundles, earlier versions revoked.

    New sessions begin in it at once. Those that are open end when they are drained; devices
    then pull the new bundle and replay by themselves.

    Traffic recorded in the epoch before stays readable for whoever has a bundle of it.
    """
    drain_s = _seconds(drain)
    done = _developer(home, config).rotate(model, source=source, drain_s=drain_s)
    _say_published(Console(as_json=as_json), done)


@app.command("renew-key")
def renew_key(
    forget: Annotated[
        bool,
        typer.Option(
            "--forget",
            help="An earlier key leaked: refuse what it signed. Publish everything again.",
        ),
    ] = False,
    home: HomeOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a new publishing key under your root; devices follow by themselves.

    Needs root.key in the home.
    """
    key = _developer(home, config).renew_key(forget=forget)
    console = Console(as_json=as_json)
    console.say(f"publishing key: {key}")
    if forget:
        console.say("what earlier keys signed is refused: publish every model again")
    console.report({"publishing_key": key, "forgot_earlier": forget})


@app.command()
def status(
    home: HomeOption = None, config: ConfigOption = None, as_json: JsonOption = False
) -> None:
    """Show devices and models, and renew the latest statement."""
    from triparty.common.documents import format_time

    found = _developer(home, config).status()
    expires = format_time(found.latest.expires)
    console = Console(as_json=as_json)
    console.say(f"cloud {found.access.url}, developer {found.access.developer}")
    for model in found.models:
        console.say(
            f"model  {model.name}  version {model.version}, epoch {model.epoch}, "
            f"{_forms(model)}{len(model.devices)} devices, from {model.out}"
        )
    for label, device in found.devices:
        state = "revoked" if device.is_revoked else "enrolled"
        name = f"{label or '?'} ({device.name})"
        console.say(f"device {name}  {state} {device.created}  {device.id}")
    console.say(f"latest statement renewed, counts until {expires}")
    console.report(
        {
            "url": found.access.url,
            "developer": found.access.developer,
            "models": [asdict(model) for model in found.models],
            "devices": [
                {
                    "id": device.id,
                    "invited_as": label,
                    "name": device.name,
                    "created": device.created,
                    "revoked": device.is_revoked,
                }
                for label, device in found.devices
            ],
            "latest_expires": expires,
        }
    )


def _say_published(console: Console, done: Publication) -> None:
    model = done.model
    console.say(
        f"published {model.name} version {model.version}, epoch {model.epoch} "
        f"({done.size_bytes / 1e6:,.1f} MB)"
    )
    for made in done.compiled:
        console.say(
            f"  {made.out}  compiled in {made.seconds:.1f} s, {made.size_bytes / 1e6:,.1f} MB"
        )
    for granted in done.granted:
        console.say(f"{granted.name}: new bundle; it must run 'triparty device pull'")
    document: dict[str, Any] = {
        "name": model.name,
        "version": model.version,
        "epoch": model.epoch,
        "size_bytes": done.size_bytes,
        "sharing": model.sharing,
        "instances": [
            {"out": str(made.out), "seconds": made.seconds, "size_bytes": made.size_bytes}
            for made in done.compiled
        ],
        "granted": [asdict(granted) for granted in done.granted],
    }
    console.report(document)


def _forms(model: PublishedModel) -> str:
    return f"{len(model.instances)} instances ({model.sharing}), " if model.instances else ""


def _seconds(text: str) -> int:
    """The seconds of `90s`, `30m` or `2h`."""
    match = re.fullmatch(r"([0-9]{1,6})([smh])", text)
    if match is None:
        raise typer.BadParameter(f"expected a time as 90s, 30m or 2h, got {text!r:.20}")
    return int(match[1]) * {"s": 1, "m": 60, "h": 3600}[match[2]]


def _developer(home: Path | None, config: Path | None) -> Developer:
    from triparty.developer.account import Developer
    from triparty.developer.settings import DeveloperSettings

    settings = DeveloperSettings.load(config, home=home)
    return Developer(settings.home, settings=settings)
