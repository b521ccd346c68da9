"""The options of commands that shield requests, beside the keys."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Noise = Annotated[
    float | None, typer.Option(help="Noise on rows, as a share of their size; costs accuracy.")
]
Rounding = Annotated[
    bool | None, typer.Option("--bfloat16-rows", help="Round rows to bfloat16.")
]
LengthBlock = Annotated[
    int | None,
    typer.Option(help="Hide lengths below this many rows, with rows that nobody reads."),
]
Decoys = Annotated[
    int | None,
    typer.Option(help="Texts to ask beside the real one; each costs as much as it."),
]
DecoyTexts = Annotated[Path | None, typer.Option(help="Texts to draw decoys from, one a line.")]
DecoyKind = Annotated[
    str | None, typer.Option(help="text, bigram or unigram: how they are drawn.")
]
