"""`OUT/secrets`: what the developer alone keeps of a protected model.

`master.key` has the 32 bytes from which every key follows, `key.json` says how: with both and
the original checkpoint, a model can be checked, rotated or extended.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from triparty.common.errors import StateError
from triparty.common.files import make_private_folder, write_private
from triparty.developer.protect.choices import Choices, Head, Norms
from triparty.developer.protect.keys import DERIVATION_VERSION, Keys
from triparty.developer.protect.output import json_bytes

SECRETS_FOLDER = "secrets"
MASTER_FILE = "master.key"
KEY_FILE = "key.json"


@dataclass(frozen=True)
class Secret:
    """What was kept of a protected model.

    Attributes:
        keys: of which every transform is drawn.
        choices: what the developer chose.
        source: the original: a folder's full path, or a hub id.
        family: its `model_type`.
        seeded: whether the keys come from a number that anybody can guess.
    """

    keys: Keys
    choices: Choices
    source: str
    family: str
    seeded: bool

    def write(self, folder: Path) -> None:
        """Writes the files, readable by their owner alone."""
        make_private_folder(folder)
        write_private(folder / MASTER_FILE, self.keys.master)
        described = {
            "family": self.family,
            "scheme": self.choices.scheme,
            "interface": self.choices.interface,
            "norms": self.choices.norms,
            "expand": self.choices.expand,
            "head_scales": self.choices.head_scales,
            "head": self.choices.head,
            "epoch": self.choices.epoch,
            "derivation_version": DERIVATION_VERSION,
            "reproducible_seed": self.seeded,
            "source": self.source,
        }
        write_private(folder / KEY_FILE, json_bytes(described))

    @classmethod
    def read(cls, folder: Path) -> Secret:
        """Reads the files.

        Raises:
            StateError: one is gone or damaged, or of another derivation version.
        """
        for name in (MASTER_FILE, KEY_FILE):
            if not (folder / name).is_file():
                raise StateError(
                    f"{folder / name} is gone: restore it from a backup, or protect the "
                    f"model anew and publish it"
                )
        keys = Keys((folder / MASTER_FILE).read_bytes())
        try:
            read: dict[str, Any] = json.loads((folder / KEY_FILE).read_bytes())
            version = read["derivation_version"]
            secret = cls(
                keys=keys,
                choices=Choices.of(
                    scheme=read["scheme"],
                    interface=read["interface"],
                    norms=read.get("norms", Norms.KEEP),  # all that version 0.1.0 could do
                    expand=read.get("expand"),
                    head_scales=bool(read.get("head_scales")),
                    head=read.get("head", Head.CLOUD),
                    epoch=read["epoch"],
                ),
                source=str(read["source"]),
                family=str(read["family"]),
                seeded=bool(read["reproducible_seed"]),
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise StateError(
                f"{folder / KEY_FILE} is damaged: restore it from a backup"
            ) from error
        if version != DERIVATION_VERSION:
            raise StateError(
                f"{folder / KEY_FILE} has derivation version {version!r}; this triparty draws "
                f"keys of version {DERIVATION_VERSION}: use the triparty that made it"
            )
        return secret


def resolved(source: str) -> str:
    """A source as `key.json` names it: a folder's full path, or a hub id as it is."""
    folder = Path(source).expanduser()
    return str(folder.resolve()) if folder.is_dir() else source
