"""`triparty device example-site`: films of a building and the file that watches them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from triparty.common.console import Console, JsonOption


def example_site(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="A folder to be made.")],
    detector: Annotated[
        Path, typer.Option(help="ONNX file of 'triparty developer example-detector'.")
    ],
    model: Annotated[
        str | None, typer.Option(help="Protected sentence encoder that questions go to.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Make a site to try things with, without cameras: generated films of a building."""
    from triparty.device.gateway.example_site import write_example_site

    console = Console(as_json=as_json)
    target = write_example_site(folder, detector=detector, model=model)
    console.say(f"Wrote films of three cameras. Try: triparty device watch {target}")
    console.report({"watch": str(target)})
