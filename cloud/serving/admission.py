"""Who may begin on which model: versions out of use, one-time instances, accounts.

Everything runs in the event loop's thread; what blocks is asked in others.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection

from triparty.cloud.serving.checks import check_open
from triparty.cloud.serving.hosting import (
    AnyHosted,
    Hosted,
    HostedElsewhere,
    Models,
    ServableModel,
)
from triparty.cloud.serving.kinds import wrong_kind
from triparty.cloud.serving.sessions import Session, Sessions, retired_error
from triparty.common.errors import SpentError, TripartyError

_log = logging.getLogger(__name__)


class Admission:
    """Opens sessions, and ends what may not go on."""

    def __init__(
        self,
        sessions: Sessions[AnyHosted],
        models: Models,
        *,
        check_running: Callable[[], None],
    ) -> None:
        """Admits everybody.

        Args:
            sessions: that are open.
            models: that are loaded.
            check_running: raises when no session may begin any more.
        """
        self._sessions, self._models = sessions, models
        self._check_running = check_running
        self._retired: dict[str, frozenset[tuple[str, int]]] = {}
        self._ending: set[asyncio.Task[None]] = set()
        self.ask: Callable[[str, ServableModel], None] = lambda *_: None
        self.remove_used: Callable[[str, str, int], None] = lambda *_: None

    async def opened(
        self, principal_id: str, model: ServableModel, *, fits: Callable[[AnyHosted], bool]
    ) -> Session[AnyHosted]:
        """A new session on a model, which is loaded if need be.

        Args:
            principal_id: whose.
            model: which.
            fits: whether the loaded model is of the kind that is asked for.

        Raises:
            LimitError: too many sessions.
            RequestError: a model of another kind.
            CheckpointError: the model cannot be served.
            UnavailableError: the cloud is shutting down.
        """
        self._check_running()
        self.check_current(model)
        self._sessions.check_room(principal_id, developer=model.developer)
        hosted = await self._models.host(model, in_use=self._sessions.has_any_on)
        self._check_running()
        if not fits(hosted):
            raise wrong_kind(model.name, is_encoder=not isinstance(hosted, Hosted))
        return await self.admitted(principal_id, model, hosted)

    async def admitted(
        self, principal_id: str, model: ServableModel, hosted: AnyHosted
    ) -> Session[AnyHosted]:
        """A new session on a loaded model, of whom may have it."""
        session = self._sessions.open(principal_id, hosted, developer=model.developer)
        session.once = model.once
        try:
            await self._have_admitted(session, model)
            self.check_current(model)
            check_open(session)
        except BaseException:
            self._sessions.close(session)
            raise
        return session

    async def _have_admitted(self, session: Session[AnyHosted], model: ServableModel) -> None:
        """Asks whether a session may begin, and uses up its one-time instance."""
        try:
            await asyncio.to_thread(self.ask, session.principal, model)
        except SpentError:
            raise
        except TripartyError:
            session.once = False  # it was not used, and stays
            raise

    def check_current(self, model: ServableModel) -> None:
        """Raises RetiredError for a version that is out of use."""
        if (model.name, model.version) in self._retired.get(model.developer, ()):
            raise retired_error()

    def ended(self, session: Session[AnyHosted]) -> None:
        """Has the one-time instance of a session that was closed removed."""
        task = asyncio.ensure_future(self._forget_used(session.hosted))
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    async def stop(self) -> None:
        """Waits for what is being removed."""
        await asyncio.gather(*self._ending, return_exceptions=True)

    def retire(
        self, developer: str, versions: frozenset[tuple[str, int]]
    ) -> frozenset[tuple[str, int]]:
        """Lets no session begin on versions of a developer's; returns those new to it."""
        new = versions - self._retired.get(developer, frozenset())
        self._retired[developer] = versions
        return new

    def end(self, developer: str, versions: Collection[tuple[str, int]]) -> int:
        """Ends the sessions on versions of a developer's models; returns how many."""
        return sum(
            self._sessions.retire(hosted)
            for hosted in [*self._models.loaded(), *self._elsewhere()]
            if hosted.key.developer == developer
            and (hosted.key.name, hosted.key.version) in versions
        )

    def _elsewhere(self) -> list[HostedElsewhere]:
        """What is in use of models that run elsewhere; each answer is of one of its own."""
        hosts = [session.hosted for session in self._sessions]
        return [hosted for hosted in hosts if isinstance(hosted, HostedElsewhere)]

    async def _forget_used(self, hosted: AnyHosted) -> None:
        if self._sessions.has_any_on(hosted):
            return  # who came first goes on with it
        await self._models.discard(hosted)
        key = hosted.key
        try:
            await asyncio.to_thread(self.remove_used, key.developer, key.name, key.version)
        except TripartyError as error:
            _log.warning(f"a used instance is left to the next start: {error.message}")
