"""Publishing a plan: signed, with the versions of the models and links that it names."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from triparty.common.artifacts import Kind
from triparty.common.errors import ManifestError
from triparty.common.links.planning.folder import PlanFolder
from triparty.developer.home import Home
from triparty.developer.publish_edge import PublishedEdge, publish_edge
from triparty.developer.settings import DeveloperSettings


def publish_plan(
    home: Home, folder: Path, *, name: str, settings: DeveloperSettings, now: datetime
) -> PublishedEdge:
    """Publishes a plan of published models and links, for all devices of this developer.

    Args:
        home: of an enrolled developer.
        folder: as `triparty developer links plan` wrote it.
        name: on the cloud.
        settings: for expiry times.
        now: when it is signed.

    Raises:
        ManifestError: not a plan, or a model or link of it is not published.
        TransportError: the cloud was not reached; publishing again goes on.
    """
    opened = PlanFolder.open(folder)
    with tempfile.TemporaryDirectory() as made:
        numbered = replace(
            opened,
            models=_versions(home, Kind.MODEL_EDGE, opened.models),
            links=_versions(home, Kind.LINK, opened.links),
        )
        numbered.save(Path(made) / "plan")
        return publish_edge(
            home, Path(made) / "plan", kind=Kind.PLAN, name=name, settings=settings, now=now
        )


def _versions(home: Home, kind: Kind, names: Iterable[str]) -> dict[str, int]:
    """The current version of each.

    Raises:
        ManifestError: one was never published.
    """
    current = home.latest_state().versions
    found = {}
    for name in names:
        if f"{kind}/{name}" not in current:
            raise ManifestError(
                f"the plan names the {kind} '{name}', which is not published: run 'triparty "
                f"developer publish FOLDER --name {name}' first"
            )
        found[name] = current[f"{kind}/{name}"]
    return found
