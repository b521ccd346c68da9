"""`triparty developer verify`: does the protected model answer what the original does?"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from triparty.common.console import Console, JsonOption
from triparty.common.errors import CheckpointError, SettingsError
from triparty.developer.cli_arguments import OutArgument, SourceArgument

if TYPE_CHECKING:
    from triparty.developer.verify import Agreement

LEAST_AGREEMENT = 0.9
"""Top-1 agreement below which `verify` fails: near-ties of a 16-bit model stay above it."""


def verify(
    source: SourceArgument,
    out: OutArgument,
    samples: Annotated[
        int, typer.Option(min=1, help="Predictions to compare, at least.")
    ] = 1000,
    texts: Annotated[
        Path | None, typer.Option(help="Also compare on these texts, one a line.")
    ] = None,
    prompt: Annotated[
        str | None, typer.Option(help="Also print the original's greedy answer to this.")
    ] = None,
    max_tokens: Annotated[int, typer.Option(min=1, help="Length of that answer.")] = 48,
    layers: Annotated[
        bool, typer.Option("--layers", help="Also print the error after each layer.")
    ] = False,
    tensors: Annotated[
        bool, typer.Option("--tensors", help="Also make every tensor again and compare.")
    ] = False,
    seed: Annotated[int, typer.Option(min=0, help="Draws the texts to compare on.")] = 0,
    as_json: JsonOption = False,
) -> None:
    """Compare the protected model with the original, both in stock transformers classes.

    Where it fails, and with --layers and --tensors, OUT/secrets says which tensor is wrong.
    """
    import numpy as np

    from triparty.developer.inspection.report import Inspection, inspect
    from triparty.developer.verify import Comparison

    console = Console(as_json=as_json)
    given = _lines(texts) if texts is not None else []
    comparison = Comparison(source, out)
    rng = np.random.default_rng(seed)
    agreement = comparison.agreement(samples, rng=rng, texts=given)
    greedy = _greedy(agreement.greedy_identical)
    console.say(
        f"{agreement.samples} predictions in {agreement.dtype}: top-1 agreement "
        f"{agreement.top1_agreement:.2%}, largest relative error of a logit "
        f"{agreement.max_relative_error:.1e}{greedy}."
    )
    document = asdict(agreement)
    if prompt is not None:
        reference = comparison.reference(prompt, max_tokens=max_tokens)
        console.say(f"The original answers: {reference.text}")
        document |= {
            "reference_token_ids": list(reference.token_ids),
            "reference_text": reference.text,
            "reference_finish_reason": reference.finish_reason,
        }
    failed, found = _failed(agreement), Inspection()
    if failed or layers or tensors:
        found = inspect(
            comparison, source, out, rng=rng, layers=failed or layers, tensors=failed or tensors
        )
        for line in found.lines():
            console.say(line)
        document |= found.document()
    console.report(document)
    accused = found.accused()
    if failed:
        raise CheckpointError(
            f"{out} does not compute what {source} computes"
            f"{f' ({accused})' if accused else ''}: was it made from it?"
        )
    if accused:
        raise CheckpointError(f"{out} is damaged: {accused}; protect the model again")


def _failed(agreement: Agreement) -> bool:
    from triparty.developer.inspection.tolerances import TOLERANCES

    wrong = agreement.max_relative_error > TOLERANCES[agreement.dtype]
    return wrong or agreement.top1_agreement < LEAST_AGREEMENT


def _lines(path: Path) -> list[str]:
    """The lines of a text file that are not empty."""
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"--texts: {path} is no text file in UTF-8 ({error})") from error
    found = [line for line in lines if line]
    if not found:
        raise SettingsError(f"--texts: {path} has no text")
    return found


def _greedy(identical: bool | None) -> str:
    if identical is None:
        return ""
    return f"; greedy continuations {'identical' if identical else 'DIFFERENT'}"
