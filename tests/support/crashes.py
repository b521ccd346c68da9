"""Kills a compilation at every durable step, and runs it again.

Started by itself as a process (with one thread, so that it may fork): `python crashes.py SOURCE
FOLDER EVERY`, where EVERY is 1 for all steps, 5 for each fifth. A child that reaches its step
sends itself SIGKILL, so that no handler runs. Prints one JSON document: how many steps there
are, and each that did not end as the undisturbed run.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from triparty.common.errors import StateError
from triparty.developer.protect import compiler, output, protect

STEPS = ("fsync", "rename", "replace", "mkdir", "unlink", "rmdir", "open")
SEED = 5


def counted(act: Callable[[int], None]) -> None:
    """Lets every durable step of this process be announced before it is taken."""
    number = 0

    def announced(step: Any) -> Any:
        def run(*args: Any, **kwargs: Any) -> Any:
            nonlocal number
            number += 1
            act(number)
            return step(*args, **kwargs)

        return run

    for name in STEPS:
        setattr(os, name, announced(getattr(os, name)))


def forked(work: Callable[[], None]) -> int:
    """The exit status of a child that does this; negative if a signal ended it."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def steps_of(source: Path, out: Path) -> int:
    """How many durable steps an undisturbed run takes."""
    reached = [0]
    counted(lambda number: reached.__setitem__(0, number))
    protect(str(source), out, seed=SEED)
    return reached[0]


def killed_at(source: Path, out: Path, *steps: int) -> str | None:
    """What is wrong after runs that are killed at these steps, and one that is not."""
    for step in steps:
        was_whole = out.exists()

        def run(step: int = step) -> None:
            def kill(number: int) -> None:
                if number == step:
                    os.kill(os.getpid(), signal.SIGKILL)

            counted(kill)
            protect(str(source), out, seed=SEED)

        code = forked(run)
        if out.exists() and contents(out) != EXPECTED:
            return "a folder that is not whole was to be seen"
        if code not in (-signal.SIGKILL, 0) and not was_whole:
            return f"ended with {code}"
    if not out.exists():
        code = forked(lambda: (protect(str(source), out, seed=SEED), None)[1])
        if code:
            return f"going on ended with {code}"
    else:
        # Whole already: a last run tidies up, or refuses to write over it.
        forked(lambda: again(source, out))
    if contents(out) != EXPECTED:
        return "other bytes"
    left = [path for path in out.parent.iterdir() if path != out]
    if any(any(path.iterdir()) for path in left if path.name != f".{out.name}.part"):
        return "something is left over"
    if any(path.name != ".lock" for folder in left for path in folder.iterdir()):
        return f"left over: {[str(path) for folder in left for path in folder.iterdir()]}"
    return None


def again(source: Path, out: Path) -> None:
    try:
        protect(str(source), out, seed=SEED)
    except StateError as error:
        if "exists already" not in error.message:
            raise


if __name__ == "__main__":
    source, folder, every = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    os.fsync = lambda descriptor: None  # processes are killed here, not machines
    output.RECORD_BYTES = 1  # after every tensor
    compiler.Keys.fresh()  # what is loaded late is loaded
    read, write = os.pipe()

    def first() -> None:
        os.write(write, str(steps_of(source, folder / "undisturbed" / "out")).encode())

    assert forked(first) == 0
    steps = int(os.read(read, 100))
    EXPECTED = contents(folder / "undisturbed" / "out")
    wrong: dict[str, str] = {}
    singles = [(step,) for step in range(1, steps + 1, every)]
    pairs = [(step, (7 * step) % steps + 1) for step in range(3, steps, 11 * every)]
    for chosen in [*singles, *pairs]:
        place = folder / "-".join(map(str, chosen))
        place.mkdir()
        found = killed_at(source, place / "out", *chosen)
        if found:
            wrong[place.name] = found
        shutil.rmtree(place)
    print(json.dumps({"steps": steps, "killed": len(singles) + len(pairs), "wrong": wrong}))
