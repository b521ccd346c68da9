"""What the routes share, as dependencies; `create_app` puts it into `app.state`."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated, Protocol, cast

from fastapi import Depends, Request

from triparty.cloud.blobs import BlobStore
from triparty.cloud.database import Database
from triparty.cloud.serving.hosting import ServableModel
from triparty.cloud.serving.totals import ServingTotals
from triparty.cloud.settings import CloudSettings
from triparty.cloud.upkeep import Upkeep

Now = Callable[[], datetime]


class SessionKeeper(Protocol):
    """What accounts need of serving; `triparty.cloud.serving.Serving` is one."""

    async def start(self) -> None:
        """Accepts sessions from now on."""

    async def stop(self) -> None:
        """Ends all sessions."""

    def close_sessions_of(self, principal_id: str) -> int:
        """Ends a principal's sessions; any thread may call."""

    def close_sessions_of_developer(self, developer: str) -> int:
        """Ends all sessions on a developer's models; any thread may call."""

    def retire(
        self, developer: str, versions: frozenset[tuple[str, int]], *, drain_s: float
    ) -> None:
        """Takes versions of a developer's models out of use; any thread may call."""

    def ask_before_opening(self, admit: Callable[[str, ServableModel], None]) -> None:
        """Has `admit` called with a principal's id and a model before a session is used."""

    def after_use(self, remove: Callable[[str, str, int], None]) -> None:
        """Has `remove` called with developer, name and version of a used one-time model."""

    def session_count(self) -> int:
        """How many sessions are open; any thread may call."""

    def totals(self) -> ServingTotals:
        """What serving does and has done; any thread may call."""


def utc_now() -> datetime:
    """The time, aware."""
    return datetime.now(UTC)


# Asynchronous on purpose: a synchronous dependency costs a thread hop each.
async def _settings(request: Request) -> CloudSettings:
    return cast(CloudSettings, request.app.state.settings)


async def _store(request: Request) -> Database:
    return cast(Database, request.app.state.database)


async def _blobs(request: Request) -> BlobStore:
    return cast(BlobStore, request.app.state.blobs)


async def _clock(request: Request) -> Now:
    return cast(Now, request.app.state.clock)


async def _sessions(request: Request) -> SessionKeeper:
    return cast(SessionKeeper, request.app.state.serving)


async def _upkeep(request: Request) -> Upkeep:
    return cast(Upkeep, request.app.state.upkeep)


Settings = Annotated[CloudSettings, Depends(_settings)]
Store = Annotated[Database, Depends(_store)]
Blobs = Annotated[BlobStore, Depends(_blobs)]
Clock = Annotated[Now, Depends(_clock)]
Care = Annotated[Upkeep, Depends(_upkeep)]
Sessions = Annotated[SessionKeeper, Depends(_sessions)]
