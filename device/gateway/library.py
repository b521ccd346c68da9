"""Models of a pulled plan: they come from the cloud when they are chosen, and go when not.

Fetching takes a while and frames do not wait: it goes on in a thread of its own. To choose anew
all models have to be there for a moment; then those that no plan runs are evicted.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Collection
from dataclasses import dataclass
from typing import Protocol

from triparty.common.errors import TripartyError

log = logging.getLogger(__name__)


class Library(Protocol):
    """Holds models of a plan."""

    def bring(self, names: Collection[str]) -> None:
        """Has exactly these models here.

        Raises:
            TripartyError, OSError: they cannot be fetched, or must not be used.
        """


@dataclass(frozen=True)
class CloudLibrary:
    """The models of a plan that this device pulled.

    Attributes:
        plan: its name.
    """

    plan: str

    def bring(self, names: Collection[str]) -> None:
        """See `Library`; what was chosen before stays where it fails."""
        from triparty.device.settings import DeviceSettings

        DeviceSettings.load(None).device().choose_models(self.plan, sorted(names))


class Fetching:
    """Has a library bring models, one wish after another, in a thread.

    Args:
        library: that brings them.
    """

    def __init__(self, library: Library) -> None:
        """Brings nothing yet."""
        self._library = library
        self._thread: threading.Thread | None = None
        self._failure: str | None = None

    @property
    def is_over(self) -> bool:
        """Whether nothing is being fetched."""
        return self._thread is None or not self._thread.is_alive()

    @property
    def failure(self) -> str | None:
        """Why the last wish was not met; None if it was. Of meaning when it is over."""
        return self._failure

    def begin(self, names: Collection[str]) -> None:
        """Begins to bring models; only when what came before is over."""
        self._thread = threading.Thread(
            target=self._bring, args=(frozenset(names),), name="plan-library", daemon=True
        )
        self._failure = None
        self._thread.start()

    def _bring(self, names: frozenset[str]) -> None:
        try:
            self._library.bring(names)
        except (TripartyError, OSError) as error:
            log.warning("models of the plan cannot be fetched: %s", error)
            self._failure = str(error)
