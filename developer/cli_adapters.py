"""`triparty developer protect-adapter`: a LoRA adapter under the key of its model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from triparty.common.console import Console, JsonOption
from triparty.developer.cli_arguments import OutArgument


def protect_adapter(
    adapter: Annotated[
        Path,
        typer.Argument(metavar="ADAPTER", help="A LoRA adapter's folder, as peft saves it."),
    ],
    out: OutArgument,
    name: Annotated[
        str | None, typer.Option(help="Name of the adapter (default: its folder's).")
    ] = None,
    source: Annotated[
        str | None, typer.Option(help="The original model, if it has been moved.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Re-key a LoRA adapter of the original: OUT/adapters/NAME, for the cloud.

    Stock peft loads it onto OUT/model.
    """
    from triparty.developer.adapters import protect_adapter as compile_adapter

    console = Console(as_json=as_json)
    made = compile_adapter(adapter, out, name=name, source=source)
    console.say(
        f"Protected an adapter of rank {made.rank} on {len(made.modules)} modules.\n"
        f"  {made.folder}   for the cloud, beside {out / 'model'}"
    )
    console.report(
        {
            "adapter": str(made.folder),
            "modules": list(made.modules),
            "rank": made.rank,
            "lora_bias": made.biased,
        }
    )
