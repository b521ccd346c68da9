"""What all tables of the configuration are made of."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

NAME = r"^[\w][\w .:-]{0,63}$"
Name = Annotated[str, Field(pattern=NAME)]


def _expanded(path: Path) -> Path:
    return path.expanduser()


UserPath = Annotated[Path, AfterValidator(_expanded)]


class Table(BaseModel):
    """A table of the file: frozen, and nothing in it that is not named here."""

    model_config = ConfigDict(extra="forbid", frozen=True)
