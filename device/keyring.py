"""Under which key a conversation goes on: the bundle held, the next one-time one, a newer one.

Of one-time instances each conversation takes the lowest that is left, and so does each request
about whole texts or images. It is noted as used as
soon as a session is open on it, before any row is sent, and its bundle is removed afterwards:
nothing, the cloud included, can make this device use it twice. Where a version was taken out
of use, what is new is pulled, and the conversation replays what it sent.
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from types import TracebackType
from typing import Self

from triparty.common.errors import PoolEmptyError, RetiredError
from triparty.common.files import locked
from triparty.common.keying import Bundle
from triparty.device.home import HeldModel, Home
from triparty.device.pull import pull


@dataclass(frozen=True, eq=False)
class Key:
    """What a conversation's rows and replies are keyed with.

    Attributes:
        bundle: opened.
        version: of the bundle, which is that of the model it belongs to.
        once: whether it is for one session.
        begin: called when a session is open on it, before anything is sent.
    """

    bundle: Bundle
    version: int
    once: bool = False
    begin: Callable[[], None] = lambda: None


class InUse:
    """The one-time instances that conversations of this process have."""

    def __init__(self) -> None:
        """None."""
        self._taken: set[HeldModel] = set()
        self._lock = threading.Lock()

    def take(self, home: Home, name: str) -> HeldModel:
        """The lowest instance of a model that nobody here has.

        Raises:
            PoolEmptyError: none is left.
        """
        with self._lock:
            for held in home.held_once(name):
                if held not in self._taken:
                    self._taken.add(held)
                    return held
        raise home.pool_empty(name)

    def give_back(self, held: HeldModel) -> None:
        """Ends the use of an instance."""
        with self._lock:
            self._taken.discard(held)


class Keyring:
    """The keys of one conversation, first to last; a context manager.

    Args:
        home: of the device.
        in_use: what other conversations have.
        held: the model, as it was opened.
        bundle: of it, opened; None, or one that is for one session: `key` opens its own.
    """

    def __init__(
        self, home: Home, in_use: InUse, held: HeldModel, bundle: Bundle | None = None
    ) -> None:
        """Takes nothing yet."""
        self._home, self._in_use = home, in_use
        self._held, self._bundle = held, bundle
        self._taken: list[HeldModel] = []

    def __enter__(self) -> Self:
        """The keyring."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Removes one-time bundles that were used."""
        for held in self._taken:
            if held.version in self._home.used(held.name):
                folder = self._home.once_folder(held.name, held.version)
                shutil.rmtree(folder, ignore_errors=True)
            self._in_use.give_back(held)

    def require(self, count: int) -> None:
        """Checks that there are keys for `count` requests without a conversation.

        Raises:
            PoolEmptyError: fewer one-time instances are left.
        """
        if not self._held.once:
            return
        left = len(self._home.held_once(self._held.name))
        if left < count:
            raise PoolEmptyError(
                f"these inputs take {count} requests, each a one-time instance, and this "
                f"device has {left} of '{self._held.name}' left: ask the developer for more "
                "('triparty developer grant'), then run 'triparty device pull'"
            )

    def key(self) -> Key:
        """The first key; of one-time ones the next.

        Raises:
            PoolEmptyError: no one-time instance is left.
        """
        if self._held.once:
            return self._next_once()
        if self._bundle is None:
            self._bundle = Bundle.open(self._home.bundle_folder(self._held.name))
        return Key(self._bundle, self._held.version)

    def next_key(self) -> Key:
        """The key after the one that was refused: pulled, or the next one-time one.

        Raises:
            PoolEmptyError: no one-time instance is left.
            RetiredError: there is no newer one.
            ArtifactError, NotFoundError, TransportError: as `pull`.
        """
        for held in self._taken:
            self._use(held)  # the cloud called it used: it is not offered again
        if not self._held.once or not self._home.held_once(self._held.name):
            with locked(self._home.folder):
                pull(self._home, name=self._held.name, now=datetime.now(UTC))
        before, self._held = self._held, self._held_now()
        if self._held.once:
            return self._next_once()
        if self._held == before:
            raise RetiredError(
                f"version {before.version} of '{before.name}' is no longer served and there is "
                "no newer one for this device: ask the developer for a grant"
            )
        self._bundle = Bundle.open(self._home.bundle_folder(self._held.name))
        return Key(self._bundle, self._held.version)

    def _held_now(self) -> HeldModel:
        for held in self._home.held():
            if held.name == self._held.name:
                return held
        raise self._home.pool_empty(self._held.name)

    def _next_once(self) -> Key:
        held = self._in_use.take(self._home, self._held.name)
        self._taken.append(held)
        folder = self._home.once_folder(held.name, held.version)
        return Key(Bundle.open(folder), held.version, once=True, begin=lambda: self._use(held))

    def _use(self, held: HeldModel) -> None:
        with locked(self._home.folder):
            self._home.note_used(held.name, held.version)
