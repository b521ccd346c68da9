"""What all models of a gateway said of the same frames, kept to train links and make plans."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import numpy as np

from triparty.common.errors import SettingsError
from triparty.common.files import write_private
from triparty.common.links.planning.costs import Cost, costs_bytes, read_costs
from triparty.common.links.recorded import PARQUET_FILE, SPECS_FILE, TABLE_FILE, Recorded
from triparty.common.links.specs import OutputSpec, read_specs
from triparty.device.gateway.predictions import Row
from triparty.device.links.selecting import recorded

COSTS_FILE: Final = "costs.json"


class Records:
    """A folder of recorded outputs that grows: a table, its specs, and what models cost.

    Each file is written whole or not at all; in the table all models have as many rows.

    Args:
        folder: that holds them; made when there is something to write.
        specs: of all models.
        most: rows that are kept; the oldest go first.
    """

    def __init__(self, folder: Path, specs: Mapping[str, OutputSpec], *, most: int) -> None:
        """Reads what is there, and writes nothing.

        Raises:
            SettingsError: outputs of other models, or other outputs of these.
            TripartyError: a file that cannot be read.
        """
        self._folder, self._specs, self._most = folder, dict(specs), most
        held = specs_held(folder)
        if held is not None and held != self._specs:
            odd = sorted(name for name in {*held, *specs} if held.get(name) != specs.get(name))
            raise SettingsError(
                f"plan: records {folder} has other models or outputs than run here (first "
                f"'{odd[0]}'): give another folder"
            )
        self._held()
        self._costs()

    def append(self, rows: Mapping[str, list[Row]], costs: Mapping[str, Cost]) -> None:
        """Adds what all models said of frames, behind what is there.

        Args:
            rows: as many of each model.
            costs: of models that ran, as measured.

        Raises:
            TripartyError, OSError: it cannot be written; what was there stays.
        """
        new, held = recorded(rows, self._specs), self._held()
        joined = {
            name: column if held is None else np.concatenate([held.outputs[name], column])
            for name, column in new.outputs.items()
        }
        last = {name: column[-self._most :] for name, column in joined.items()}
        Recorded(new.specs, last).save(self._folder)
        write_private(self._folder / COSTS_FILE, costs_bytes({**self._costs(), **costs}))

    def _held(self) -> Recorded | None:
        tables = (self._folder / name for name in (TABLE_FILE, PARQUET_FILE))
        return Recorded.open(self._folder) if any(one.is_file() for one in tables) else None

    def _costs(self) -> dict[str, Cost]:
        file = self._folder / COSTS_FILE
        return read_costs(file) if file.is_file() else {}


def specs_held(folder: Path) -> dict[str, OutputSpec] | None:
    """What a folder says that models give; None if it says nothing.

    Raises:
        ManifestError: its specs cannot be read.
    """
    file = folder / SPECS_FILE
    return dict(read_specs(file)) if file.is_file() else None
