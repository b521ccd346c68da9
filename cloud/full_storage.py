"""A disk that takes no more, whoever notices it: the file system or the database."""

from __future__ import annotations

import errno
import sqlite3

from sqlalchemy.exc import DBAPIError

from triparty.common.errors import StorageFullError

_FULL_DISK = (errno.ENOSPC, errno.EDQUOT)
_FULL_SQLITE = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_SHMSIZE)
_FULL_POSTGRESQL = "53100"  # disk_full
_FULL_OBJECTS = ("QuotaExceeded", "XMinioStorageFull", "XMinioAdminBucketQuotaExceeded")
"""What S3 servers say: Ceph's, MinIO's; that of AWS is never full."""


def is_storage_full(error: Exception) -> bool:
    """Whether an error of the file system, the database or an object store means: no room."""
    if isinstance(error, DBAPIError):
        driver = error.orig
        return (
            getattr(driver, "sqlite_errorcode", None) in _FULL_SQLITE
            or getattr(driver, "sqlstate", None) == _FULL_POSTGRESQL
        )
    if isinstance(error, OSError) and error.errno in _FULL_DISK:
        return True
    # Drivers turn the server's answer into another error, and keep it as its cause.
    answer = getattr(error.__cause__ or error, "response", None)
    said = answer.get("Error") if isinstance(answer, dict) else None
    return isinstance(said, dict) and said.get("Code") in _FULL_OBJECTS


def storage_full() -> StorageFullError:
    """The error of a request that found no room."""
    return StorageFullError(
        "the cloud has no room to store this: its operator makes some, then repeat; "
        "what was stored before is safe"
    )
