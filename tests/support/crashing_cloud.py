"""Serves a cloud that kills itself at one of its durable steps.

Started by itself as a process (with one thread, so that it may fork): each line on its standard
input, `{"data": FOLDER, "port": N, "step": N}`, makes a child that serves the folder until it
reaches its step (a number or a name; 0: none) or is told to stop. A child that reaches its step
sends itself SIGKILL, so that no handler runs. Lines on standard output: `["ready", PID]`; of a
child that was told to stop `["steps", [NAME, ...]]`; `["ended", EXIT_STATUS]`.

A durable step is counted twice, before it is taken and after, from the ready line on. Steps are
those of the file system, of the database, and the writing requests to an S3 server.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, event
from sqlalchemy.orm import Session

from triparty.cloud import server
from triparty.cloud.serving.local import LocalEngine
from triparty.cloud.settings import load_settings

try:
    import s3fs.core as s3
except ModuleNotFoundError:
    s3 = None

STEPS = ("fsync", "rename", "replace", "link", "mkdir", "unlink", "rmdir")
S3_PART_BYTES = 5 << 20  # the least that a server takes
S3_STEPS = (
    "put_object",
    "delete_object",
    "copy_object",
    "create_multipart_upload",
    "upload_part",
    "complete_multipart_upload",
)


def say(*words: Any) -> None:
    # In one piece: a child that is killed at once has said the whole line or nothing.
    os.write(sys.stdout.fileno(), f"{json.dumps(words)}\n".encode())


def announced(act: Callable[[str], None]) -> None:
    """Has `act` called before and after each durable step of this process."""

    def around(name: str, step: Any) -> Any:
        def run(*args: Any, **kwargs: Any) -> Any:
            act(f"before {name}")
            done = step(*args, **kwargs)
            act(f"after {name}")
            return done

        return run

    for name in STEPS:
        setattr(os, name, around(name, getattr(os, name)))
    _announce_s3(act)
    event.listen(Engine, "commit", lambda _: act("before commit"))
    event.listen(Session, "after_commit", lambda _: act("after commit"))


def _announce_s3(act: Callable[[str], None]) -> None:
    if s3 is None:
        return
    s3.calculate_chunksize = lambda *_, **__: S3_PART_BYTES
    call = s3.S3FileSystem._call_s3

    async def announced(self: Any, method: str, *args: Any, **kwargs: Any) -> Any:
        if method not in S3_STEPS:
            return await call(self, method, *args, **kwargs)
        act(f"before {method}")
        done = await call(self, method, *args, **kwargs)
        act(f"after {method}")
        return done

    s3.S3FileSystem._call_s3 = announced


def serve(data: Path, port: int, step: int | str) -> None:
    taken: list[str] = []
    is_counting = False

    def ready(_: server.Ready) -> None:
        nonlocal is_counting
        is_counting = True
        say("ready", os.getpid())

    def act(name: str) -> None:
        if not is_counting:
            return
        taken.append(name)
        if step in (len(taken), name):
            os.kill(os.getpid(), signal.SIGKILL)

    announced(act)
    server.serve(load_settings(data, port=port), allow_insecure=False, announce=ready)
    say("steps", taken)


def main() -> None:
    assert LocalEngine  # what is loaded late is loaded
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            code = 1
            try:
                asked = json.loads(line)
                serve(Path(asked["data"]), asked["port"], asked["step"])
                code = 0
            finally:
                os._exit(code)
        say("ended", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))


if __name__ == "__main__":
    main()
