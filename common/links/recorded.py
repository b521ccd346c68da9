"""Recorded outputs: what several models said about the same inputs, row by row.

A folder with `specs.json`, which describes each model's output (`specs.py`), and a table with
a column a model, in the order of the inputs: `outputs.npz`, or `outputs.parquet`.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from triparty.common.documents import check_name
from triparty.common.errors import DatasetError, SettingsError
from triparty.common.files import PRIVATE_MODE, atomic_file, make_private_folder, write_private
from triparty.common.links.specs import (
    Outputs,
    OutputSpec,
    check_outputs,
    read_specs,
    specs_bytes,
)
from triparty.common.tables import read_table

SPECS_FILE: Final = "specs.json"
TABLE_FILE: Final = "outputs.npz"
PARQUET_FILE: Final = "outputs.parquet"

Rows = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Recorded:
    """Aligned outputs of models on the same n inputs; made by `check_recorded` or `open`.

    Attributes:
        specs: of the models' outputs, by name.
        outputs: (n, ...) by name, as `specs` says.
    """

    specs: Mapping[str, OutputSpec]
    outputs: Mapping[str, Outputs]

    def __len__(self) -> int:
        """How many inputs."""
        return len(next(iter(self.outputs.values())))

    def part(self, rows: Rows) -> Recorded:
        """The outputs on some of the inputs."""
        return Recorded(
            self.specs, {name: values[rows] for name, values in self.outputs.items()}
        )

    def models(self, names: Iterable[str]) -> Recorded:
        """The outputs of some of the models.

        Raises:
            SettingsError: a model that was not recorded.
        """
        wanted = list(names)
        if unknown := [name for name in wanted if name not in self.specs]:
            raise SettingsError(
                f"no outputs of '{unknown[0]:.80}' were recorded: there are "
                f"{', '.join(self.specs):.400}"
            )
        return Recorded(
            {name: self.specs[name] for name in wanted},
            {name: self.outputs[name] for name in wanted},
        )

    def save(self, folder: Path) -> None:
        """Writes the folder, for its owner alone; specs first: no table is without them."""
        make_private_folder(folder)
        write_private(folder / SPECS_FILE, specs_bytes(self.specs))
        with (
            atomic_file(folder / TABLE_FILE, mode=PRIVATE_MODE) as stream,
            zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive,
        ):
            for name, column in self.outputs.items():
                entry = zipfile.ZipInfo(f"{name}.npy")  # without a time: the same bytes again
                with archive.open(entry, "w", force_zip64=True) as sink:
                    npy.write_array(sink, np.ascontiguousarray(column), allow_pickle=False)

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Reads and checks a folder of recorded outputs.

        Raises:
            ManifestError, SettingsError: its specs cannot be read, or there is no table.
            DatasetError: outputs that are not what the specs say; names model and row.
        """
        specs = read_specs(folder / SPECS_FILE)
        table = next(
            (folder / name for name in (TABLE_FILE, PARQUET_FILE) if (folder / name).is_file()),
            None,
        )
        if table is None:
            raise SettingsError(f"{folder} has neither {TABLE_FILE} nor {PARQUET_FILE}")
        checked = check_recorded(specs, read_table(table))
        return cls(checked.specs, checked.outputs)


def check_recorded(specs: Mapping[str, OutputSpec], outputs: Mapping[str, Any]) -> Recorded:
    """Outputs of models, if they are aligned and what the specs say.

    Args:
        specs: of the models' outputs, by name.
        outputs: one row an input, by name.

    Raises:
        ManifestError: a model's name that is none.
        DatasetError: a model without outputs or without a spec, no rows, different numbers of
            rows, or a row that is wrong; names model and row.
    """
    if specs.keys() != outputs.keys():
        odd = min(specs.keys() ^ outputs.keys())
        lacks = "no outputs" if odd in specs else "no output spec"
        raise DatasetError(f"there is {lacks} for '{odd:.80}'")
    checked: dict[str, Outputs] = {}
    for name, spec in specs.items():
        column = outputs[check_name(name, what="model")]
        if not isinstance(column, np.ndarray):
            raise DatasetError(f"outputs of '{name}' are texts: expected numbers or tokens")
        checked[name] = check_outputs(name, spec, column)
    lengths = {name: len(values) for name, values in checked.items()}
    if len(set(lengths.values())) > 1 or 0 in lengths.values():
        told = ", ".join(f"{name}: {length}" for name, length in lengths.items())
        raise DatasetError(
            f"recorded outputs need one row an input from every model, got {told:.400}"
        )
    return Recorded(dict(specs), checked)
