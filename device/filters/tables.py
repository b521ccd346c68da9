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
    table: Table, inputs: Sequence[str], results: Sequence[str], *, has_model: bool
) -> tuple[dict[str, Any], Any | None]:
    """The columns of inputs, and of results.

    Args:
        table: of a data set.
        inputs: columns, each `COLUMN` or `NAME=COLUMN`; none takes all that hold more than one
            number a row, or texts.
        results: the column of results, or one a task, `TASK=COLUMN`; none takes the first of
            `RESULTS`.
        has_model: whether a model makes the results, so that none need be there.

    Returns:
        Inputs by name, and the column of results: by task if that is how they were named.

    Raises:
        SettingsError: a column that is not there, or none that could be meant.
    """
    named, said = _named(inputs), _named(results)
    if unknown := [one for one in (*named.values(), *said.values()) if one not in table]:
        raise SettingsError(f"no column '{unknown[0]}': there are {', '.join(table)}")
    if not said:
        said = {name: name for name in [one for one in RESULTS if one in table][:1]}
    if not said and not has_model:
        raise SettingsError(
            f"no results among {', '.join(table)}: name their column with --results, or a "
            "--model that makes them"
        )
    taken = named or {
        name: name
        for name, column in table.items()
        if name not in said.values() and _is_input(column)
    }
    if not taken:
        raise SettingsError(f"no inputs among {', '.join(table)}: name them with --inputs")
    columns = {name: table[column] for name, column in taken.items()}
    if not said:
        return columns, None
    by_task = {task: table[column] for task, column in said.items()}
    return columns, by_task if any("=" in one for one in results) else by_task.popitem()[1]


def _named(texts: Sequence[str]) -> dict[str, str]:
    """Columns by the names that `NAME=COLUMN` gives them, else by their own."""
    parted = [text.partition("=") for text in texts]
    return {name: column if separator else name for name, separator, column in parted}


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
