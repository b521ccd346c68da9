"""A secret of the configuration: never in it, but in a file or a variable that it names."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from triparty.common.errors import SettingsError


@dataclass(frozen=True)
class Secret:
    """Where a secret is.

    Attributes:
        what: it is, for messages.
        file: that holds it alone.
        variable: of the environment that holds it.
    """

    what: str
    file: Path | None
    variable: str | None

    def read(self, folder: Path) -> str | None:
        """The secret; None if it is in neither.

        Args:
            folder: of the configuration; a relative file is relative to it.

        Raises:
            SettingsError: it is in both, the variable is not set, or the file cannot be read.
        """
        if self.file is not None and self.variable is not None:
            raise SettingsError(f"{self.what}: give a file or a variable, not both")
        if self.variable is not None:
            value = os.environ.get(self.variable)
            if value is None:
                raise SettingsError(f"{self.what}: the variable {self.variable} is not set")
            return value
        if self.file is None:
            return None
        path = folder / self.file
        try:
            return path.read_text(encoding="utf-8").strip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            raise SettingsError(f"{self.what}: cannot read {path}") from error
