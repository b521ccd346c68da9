"""Arguments that several of the developer's commands take."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

SourceArgument = Annotated[
    str, typer.Argument(metavar="SRC", help="Checkpoint folder, or a Hugging Face hub id.")
]
OutArgument = Annotated[Path, typer.Argument(metavar="OUT", help="The protected folder.")]
