"""Sessions by the requests that asked for them, so that a repeated request gets the same one.

Where a session uses up a one-time instance, a client that did not hear of it must be able to
ask again without using up another. Everything here runs in the event loop's thread.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar


class Closable(Protocol):
    """What was opened; `Session` is one."""

    @property
    def closed(self) -> bool:
        """Whether it has ended."""


OpenedT = TypeVar("OpenedT", bound=Closable)


@dataclass(frozen=True)
class Asked:
    """A request for a session.

    Attributes:
        principal: who asks.
        model: for which model.
        version: of the bundle that it names, if any.
        request_id: the client's name for the request.
    """

    principal: str
    model: str
    version: int | None
    request_id: str


class Openings(Generic[OpenedT]):
    """What is being opened, and what was and has not ended."""

    def __init__(self) -> None:
        """Nothing."""
        self._tasks: dict[Asked, asyncio.Task[OpenedT]] = {}

    def __len__(self) -> int:
        """How many requests are remembered."""
        return len(self._tasks)

    async def opened(self, asked: Asked, open_it: Callable[[], Awaitable[OpenedT]]) -> OpenedT:
        """What `open_it` opens, or what it opened for the same request before.

        Opening goes on when whoever waits for it is cancelled.

        Raises:
            Exception: as `open_it`; what failed is tried again by the next request.
        """
        self._forget_ended()
        task = self._tasks.get(asked)
        if task is None:
            task = asyncio.ensure_future(_awaited(open_it))
            task.add_done_callback(_seen)
            self._tasks[asked] = task
        return await asyncio.shield(task)

    async def stop(self) -> None:
        """Cancels what is being opened."""
        tasks = list(self._tasks.values())
        self._tasks.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _forget_ended(self) -> None:
        for asked, task in list(self._tasks.items()):
            if task.done() and (task.cancelled() or task.exception() or task.result().closed):
                del self._tasks[asked]


async def _awaited(open_it: Callable[[], Awaitable[OpenedT]]) -> OpenedT:
    return await open_it()


def _seen(task: asyncio.Task[OpenedT]) -> None:
    """Has looked at a failure for which nobody may be waiting any more."""
    if not task.cancelled():
        task.exception()
