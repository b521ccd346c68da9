"""What a running cloud does beside its requests: looks for damage, reclaims room."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from triparty.cloud.blobs import BlobStore
from triparty.cloud.cleaning import Cleaned, clean
from triparty.cloud.database import Database
from triparty.cloud.inspection import find_damage
from triparty.common.errors import UnavailableError

CLEAN_EVERY_S = 3600.0
_log = logging.getLogger(__name__)


class Upkeep:
    """The work of one cloud; every method but `going_on` blocks."""

    def __init__(
        self,
        database: Database,
        blobs: BlobStore,
        *,
        keep_s: float,
        clock_s: Callable[[], float],
    ) -> None:
        """Looks after a database and a blob store.

        Args:
            database: of this cloud.
            blobs: of this cloud.
            keep_s: what belongs to no artifact is removed after so many seconds.
            clock_s: the time, in seconds since 1970.
        """
        self._database = database
        self._blobs = blobs
        self._keep_s = keep_s
        self._clock_s = clock_s
        self._has_ended = threading.Event()

    def inspect_database(self) -> None:
        """Says in the log what is wrong with the database's file."""
        for line in self._database.inspect():
            _log.error(f"the database is damaged, it is only read: {line}")

    def inspect_blobs(self) -> None:
        """Says in the log which artifacts lack a blob, as far as sizes tell."""
        found = find_damage(
            self._database, self._blobs, reads_all=False, on_artifact=self._check_going_on
        )
        for damage in found:
            _log.error(str(damage))

    def clean(self) -> Cleaned:
        """Removes uploads and blobs that belong to no artifact."""
        cleaned = clean(
            self._database,
            self._blobs,
            before_s=self._clock_s() - self._keep_s,
            has_ended=self._has_ended.is_set,
        )
        if cleaned.uploads or cleaned.blobs:
            _log.info(
                f"removed {cleaned.uploads} abandoned uploads and {cleaned.blobs} blobs of no "
                f"artifact, {cleaned.bytes} bytes"
            )
        return cleaned

    @asynccontextmanager
    async def going_on(self) -> AsyncIterator[None]:
        """Inspects at the start and cleans every hour while the block runs."""
        await asyncio.to_thread(self.inspect_database)
        self._has_ended.clear()
        ended = asyncio.Event()
        task = asyncio.create_task(self._go_on(ended))
        try:
            yield
        finally:
            self._has_ended.set()
            ended.set()
            await task

    async def _go_on(self, ended: asyncio.Event) -> None:
        work: Callable[[], object] = self.inspect_blobs
        while not ended.is_set():
            try:
                await asyncio.to_thread(work)
            except UnavailableError as error:
                _log.warning(f"upkeep is put off: {error.message}")
            except _EndedError:
                return
            except Exception:  # the outermost edge of this work; the next hour tries again
                logging.getLogger(__name__).exception("upkeep failed")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(ended.wait(), CLEAN_EVERY_S)
            work = self.clean

    def _check_going_on(self) -> None:
        if self._has_ended.is_set():
            raise _EndedError


class _EndedError(Exception):
    """The cloud is stopping: what is left is looked at after the next start."""
