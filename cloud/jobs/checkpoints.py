"""Where a training stands, on disk: one folder a checkpoint, whole or not there.

```
FOLDER/checkpoint-N/state.safetensors   weights, best weights, optimiser, generators, order
FOLDER/checkpoint-N/state.json          numbers beside them
```

A folder gets its name by a rename after its files were synced; the one before goes then.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

from triparty.common.errors import CheckpointError
from triparty.common.files import make_private_folder, sync_folder, write_private
from triparty.common.nets.descent import TrainingState

_NAME = re.compile(r"checkpoint-(\d{1,12})", re.ASCII)
_TENSORS, _FACTS = "state.safetensors", "state.json"


class Checkpoints:
    """The checkpoints of one training, for one process at a time.

    Args:
        folder: of the training.
    """

    def __init__(self, folder: Path) -> None:
        """Takes up what is there; what was being written when a process died goes."""
        self._folder = folder
        for left in folder.glob(".checkpoint-*"):
            shutil.rmtree(left)

    def newest(self) -> TrainingState | None:
        """The newest state; None before the first one.

        Raises:
            CheckpointError: it cannot be read.
        """
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        numbers = self._numbers()
        if not numbers:
            return None
        where = self._folder / f"checkpoint-{numbers[-1]}"
        try:
            tensors = load_file(where / _TENSORS)
            return TrainingState(tensors, json.loads((where / _FACTS).read_bytes()))
        except (OSError, ValueError, SafetensorError) as error:
            raise CheckpointError(f"{where} cannot be read: {error}") from error

    def save(self, state: TrainingState) -> None:
        """Keeps a state in the place of those before it."""
        from safetensors.numpy import save

        before = self._numbers()
        name = f"checkpoint-{before[-1] + 1 if before else 1}"
        making = self._folder / f".{name}"
        make_private_folder(making)
        write_private(making / _TENSORS, save(dict(state.tensors)))
        write_private(making / _FACTS, json.dumps(dict(state.facts)).encode())
        os.rename(making, self._folder / name)
        sync_folder(self._folder)
        for number in before:
            shutil.rmtree(self._folder / f"checkpoint-{number}")

    def _numbers(self) -> list[int]:
        found = (_NAME.fullmatch(path.name) for path in self._folder.iterdir())
        return sorted(int(match[1]) for match in found if match)
