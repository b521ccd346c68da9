"""A new key epoch of a published model: new master key, new version, new bundles.

The versions before are revoked: no session begins on them, and those that are open end, at
once or when they were drained for as long as asked. Their devices pull the new bundle and
replay. Devices that were revoked get no bundle of it. Instances are compiled anew, as many as
there were.

What it does not do: recorded traffic of the epoch before stays readable for whoever has a
bundle of it, and the relative key of two epochs can be found from their weights alone.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from pathlib import Path

from triparty.common.errors import StateError
from triparty.developer.home import Home
from triparty.developer.protect import protect
from triparty.developer.protect.secret import SECRETS_FOLDER, Secret, resolved
from triparty.developer.publish import Publication, device_info, publish_model
from triparty.developer.settings import DeveloperSettings


def rotate(
    home: Home,
    name: str,
    *,
    source: str | None,
    settings: DeveloperSettings,
    now: datetime,
    drain_s: int = 0,
) -> Publication:
    """Re-keys a published model and publishes it as the next epoch.

    Args:
        home: of an enrolled developer.
        name: of the published model.
        source: the original checkpoint; None takes the one it was protected from.
        settings: for expiry times.
        now: when it is signed.
        drain_s: seconds for which sessions that are open may go on in the epoch before.

    Raises:
        StateError: not published from this home, or the original is gone.
        TransportError: the cloud was not reached; rotating again goes on.
    """
    model = home.existing_model(name)
    before = Path(model.out)
    described = Secret.read(before / SECRETS_FOLDER)
    original = source or described.source
    is_gone = Path(original).is_absolute() and not Path(original).is_dir()
    if source is None and (not original or is_gone):  # a hub id is no path
        raise StateError(f"the original checkpoint {original!r} is gone: name it with --source")
    epoch = model.epoch + 1
    out = before.with_name(f"{name}.epoch{epoch}")
    choices = replace(described.choices, epoch=epoch)
    if not out.exists():  # else an earlier attempt was cut after the compiler had finished
        protect(original, out, choices=choices)
    found, made_from = device_info(out), Secret.read(out / SECRETS_FOLDER).source
    if found.epoch != epoch or made_from != resolved(original):
        raise StateError(
            f"{out} is of epoch {found.epoch}, made from {made_from}; expected epoch {epoch}, "
            f"made from {original}: move it away"
        )
    held = device_info(before)
    if (found.family, found.vocabulary) != (held.family, held.vocabulary):
        raise StateError(
            f"{original} is a {found.family} model with {found.vocabulary} tokens, '{name}' is "
            f"a {held.family} model with {held.vocabulary}: publish it under another name"
        )
    return publish_model(
        home,
        out,
        name=name,
        settings=settings,
        now=now,
        revoke_earlier=True,
        drain_s=drain_s,
    )
