"""A disk that takes no more, whoever notices it: the file system or the database."""

from __future__ import annotations

import errno
import sqlite3

from sqlalchemy.exc import DBAPIError

from triparty.common.errors import StorageFullError

_FULL_DISK = (errno.ENOSPC, errno.EDQUOT)
_FULL_SQLITE = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_SHMSIZE)
_FULL_POSTGRESQL = "53100"  # disk_full


def is_storage_full(error: Exception) -> bool:
    """Whether an error of the file system or of the database means: no room."""
    if isinstance(error, DBAPIError):
        driver = error.orig
        return (
            getattr(driver, "sqlite_errorcode", None) in _FULL_SQLITE
            or getattr(driver, "sqlstate", None) == _FULL_POSTGRESQL
        )
    return isinstance(error, OSError) and error.errno in _FULL_DISK


def storage_full() -> StorageFullError:
    """The error of a request that found no room."""
    return StorageFullError(
        "the cloud has no room to store this: its operator makes some, then repeat; "
        "what was stored before is safe"
    )
