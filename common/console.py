"""What a command prints: text for people, or one JSON document for scripts.

A verb that reports takes `--json` and then prints one JSON document on stdout and nothing
else. Progress goes to stderr, and only to a terminal. Errors go to stderr, one line.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Annotated, Any, Protocol

import typer

JsonOption = Annotated[
    bool, typer.Option("--json", help="Print one JSON document and nothing else.")
]


class Advance(Protocol):
    """Tells a progress bar how far the work is."""

    def __call__(self, steps: float = 1, *, note: str | None = None) -> None:
        """Adds `steps` to the work done; `note` replaces the bar's text."""


class Console:
    """The one place from which a command writes to stdout.

    Args:
        as_json: print JSON documents only.
    """

    def __init__(self, *, as_json: bool) -> None:
        """Remembers the form of the output."""
        self.as_json = as_json

    def say(self, text: str) -> None:
        """Prints a line for people; nothing under `--json`."""
        if not self.as_json:
            typer.echo(text)

    def write(self, text: str) -> None:
        """Prints a piece of streamed text at once; nothing under `--json`.

        A model's words may hold control characters, with which a terminal can be steered:
        only line ends and tabs pass.
        """
        if not self.as_json:
            sys.stdout.write("".join(c for c in text if c.isprintable() or c in "\n\t"))
            sys.stdout.flush()

    def report(self, document: Mapping[str, Any]) -> None:
        """Prints the command's one JSON document; nothing without `--json`."""
        if self.as_json:
            # ASCII alone: a device's answer may hold what steers a terminal or cannot be
            # encoded, and a reader of JSON gets the same text.
            typer.echo(json.dumps(document))


@contextmanager
def progress(title: str, total: float, *, in_bytes: bool = False) -> Iterator[Advance]:
    """A progress bar on stderr if that is a terminal, else silence.

    Args:
        title: what is being done.
        total: how many steps the work has.
        in_bytes: whether a step is a byte; the bar then shows bytes and their speed.
    """
    if not sys.stderr.isatty():
        yield _silent
        return
    from rich.console import Console as RichConsole
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        ProgressColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    columns: list[ProgressColumn] = [TextColumn("{task.description}"), BarColumn()]
    if in_bytes:
        columns += [DownloadColumn(), TransferSpeedColumn()]
    columns += [TimeElapsedColumn(), TimeRemainingColumn()]
    with Progress(*columns, console=RichConsole(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=total)

        def advance(steps: float = 1, *, note: str | None = None) -> None:
            bar.update(task, advance=steps, description=note or title)

        yield advance


def _silent(steps: float = 1, *, note: str | None = None) -> None:
    """The progress of a command whose stderr is no terminal."""
