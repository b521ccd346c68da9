"""The page's password: made when there is none, checked at each login."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

from starlette.concurrency import run_in_threadpool

from triparty.common.pages.passwords import PasswordHash, new_password

WHO = "operator"


def ensure(file: Path) -> str | None:
    """Makes a password if none was set; returns it, to be told once, or None.

    Raises:
        StateError: the file is there and holds no hash.
    """
    if file.exists():
        PasswordHash.read(file)
        return None
    password = new_password()
    PasswordHash.of(password).write(file)
    return password


def checker(file: Path) -> Callable[[str], Awaitable[str | None]]:
    """Says whether a password is the one whose hash a file holds at that time."""

    def check(password: str) -> str | None:
        return WHO if PasswordHash.read(file).fits(password) else None

    async def checked(password: str) -> str | None:
        return await run_in_threadpool(check, password)

    return checked
