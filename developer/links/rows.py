"""Parts of recorded outputs, by row: some to train on, others to judge by."""

from __future__ import annotations

import re

import numpy as np

from triparty.common.errors import SettingsError
from triparty.common.links.recorded import Recorded


def rows_of(recorded: Recorded, rows: str | None) -> Recorded:
    """Some of the recorded inputs, in their order.

    Args:
        recorded: outputs of models.
        rows: "A:B": from row A, the first is 0, up to and without B; either may be left out,
            and -N counts from the end. None: all.

    Raises:
        SettingsError: it is not of that form, or there are no such rows.
    """
    if rows is None:
        return recorded
    found = re.fullmatch(r"(-?\d{1,12})?:(-?\d{1,12})?", rows)
    if found is None:
        raise SettingsError(
            f"--rows {rows:.40}: expected A:B, the first row and the one behind the last"
        )
    first, end = (int(one) if one else None for one in found.groups())
    places = np.arange(len(recorded))[first:end]
    if not len(places):
        raise SettingsError(f"--rows {rows}: there are none, of {len(recorded)}")
    return recorded.part(places)
