"""Which columns of a data set are inputs, and which are what the model said."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from triparty.common.errors import SettingsError
from triparty.common.nets.blocks import Blocks, blocks_of
from triparty.common.tables import Table

RESULTS: Final = ("results", "needed", "labels", "label", "y")


def chosen(
    table: Table, inputs: Sequence[str], results: str | None, *, has_model: bool
) -> tuple[dict[str, Any], Any | None]:
    """The columns of inputs, and that of results.

    Args:
        table: of a data set.
        inputs: names of columns; none takes all that hold more than one number a row, or texts.
        results: name of the column of results; None takes the first of `RESULTS`.
        has_model: whether a model makes the results, so that none need be there.

    Raises:
        SettingsError: a column that is not there, or none that could be meant.
    """
    result = results or next((name for name in RESULTS if name in table), None)
    named = [*inputs, *([results] if results else [])]
    if unknown := [name for name in named if name not in table]:
        raise SettingsError(f"no column '{unknown[0]}': there are {', '.join(table)}")
    if result is None and not has_model:
        raise SettingsError(
            f"no results among {', '.join(table)}: name their column with --results, or a "
            "--model that makes them"
        )
    taken = list(inputs) or [
        name for name, column in table.items() if name != result and _is_input(column)
    ]
    if not taken:
        raise SettingsError(f"no inputs among {', '.join(table)}: name them with --inputs")
    return {name: table[name] for name in taken}, None if result is None else table[result]


def block_numbers(table: Table, name: str) -> Blocks:
    """(n,) the number of each row's block.

    Args:
        table: of a data set.
        name: of the column whose equal values are a block; after a colon, the length of the
            stretches into which its numbers are parted, as in `wall:60`.

    Raises:
        SettingsError: a column that is not there, or a length that is none.
        DatasetError: a column that parts nothing.
    """
    column, separator, length = name.partition(":")
    if column not in table:
        raise SettingsError(f"no column '{column}': there are {', '.join(table)}")
    try:
        stretch = float(length) if separator else None
    except ValueError:
        raise SettingsError(
            f"--blocks {name:.40}: expected COLUMN or COLUMN:LENGTH, as in wall:60"
        ) from None
    return blocks_of(table[column], stretch)


def _is_input(column: Any) -> bool:
    is_text = not isinstance(column, np.ndarray) or column.dtype.kind == "U"
    return is_text or column.ndim > 1
