"""Typed settings of a role, from its TOML file and the environment.

One TOML file per role; every key is also an environment variable with the role's prefix
(`TRIPARTY_DEVICE_HOME`). Precedence: command line, environment, file, default. An unknown key
or an unknown variable with that prefix is an error that names the nearest known one.
"""

from __future__ import annotations

import os
import tomllib
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self

from pydantic import AfterValidator, ValidationError
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, SettingsConfigDict
from pydantic_settings import SettingsError as SourceError

from triparty.common.errors import SettingsError


def _expanded(path: Path) -> Path:
    if path == Path():
        raise ValueError("an empty path is no folder")
    return path.expanduser()


HomePath = Annotated[Path, AfterValidator(_expanded)]
"""A folder of a party; `~` is the user's."""


class RoleSettings(BaseSettings):
    """Base of a role's settings; a subclass sets `role` and `model_config["env_prefix"]`.

    Use `settings_config("TRIPARTY_DEVICE_")` for `model_config`.
    """

    role: ClassVar[str]

    @classmethod
    def load(cls, file: Path | None, **command_line: Any) -> Self:
        """Reads the settings.

        Args:
            file: TOML file, or None; a named file must exist.
            **command_line: values given on the command line; None means not given.

        Raises:
            SettingsError: an unknown key, a wrong type, a value out of range, or a file
                that cannot be read; the message names the key and the remedy.
        """
        given = {key: value for key, value in command_line.items() if value is not None}
        try:
            cls._check_environment()
            in_file = cls._read(file) if file else {}
            environment = cls._environment_keys()
            merged = {k: v for k, v in in_file.items() if k not in environment} | given
            return cls(**merged)
        except ValidationError as wrong:
            first = wrong.errors()[0]
            key = ".".join(str(part) for part in first["loc"])
            raise SettingsError(
                f"{cls.role} setting '{key}': {first['msg']}{cls._shown(first)}"
            ) from (None if cls._is_secret(first) else wrong)
        except SourceError as wrong:  # of an environment variable that is no JSON
            raise SettingsError(f"{cls.role} settings: {wrong}") from wrong

    @classmethod
    def _shown(cls, wrong: ErrorDetails) -> str:
        return "" if cls._is_secret(wrong) else f", got {wrong.get('input')!r}"

    @classmethod
    def _is_secret(cls, wrong: ErrorDetails) -> bool:
        """Whether the value is a secret: hidden from `repr`, or of a secret type."""
        field = cls.model_fields.get(str(wrong["loc"][0])) if wrong["loc"] else None
        return field is None or not field.repr or "Secret" in str(field.annotation)

    @classmethod
    def _prefix(cls) -> str:
        return str(cls.model_config.get("env_prefix", ""))

    @classmethod
    def _environment_keys(cls) -> set[str]:
        prefix = cls._prefix()
        names = (name.upper() for name in os.environ)  # pydantic ignores their case
        return {n.removeprefix(prefix).lower() for n in names if n.startswith(prefix)}

    @classmethod
    def _check_environment(cls) -> None:
        prefix = cls._prefix()
        for name in cls._environment_keys():
            cls._known(name, f"environment variable {prefix}{name.upper()}", prefix)

    @classmethod
    def _read(cls, file: Path) -> dict[str, Any]:
        try:
            document = tomllib.loads(file.read_text(encoding="utf-8"))
        except OSError as error:
            raise SettingsError(f"cannot read {file}: {error.strerror}") from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise SettingsError(f"{file} is not valid TOML: {error}") from error
        for name in document:
            cls._known(name, f"key '{name}' in {file}", None)
        return document

    @classmethod
    def _known(cls, name: str, where: str, env_prefix: str | None) -> None:
        if name in cls.model_fields:
            return
        near = get_close_matches(name, cls.model_fields, n=1, cutoff=0.0)
        nearest = near[0] if env_prefix is None else env_prefix + near[0].upper()
        raise SettingsError(f"unknown {where}; the nearest known one is {nearest}")


def settings_config(env_prefix: str) -> SettingsConfigDict:
    """The pydantic-settings configuration of a role."""
    return SettingsConfigDict(env_prefix=env_prefix, extra="forbid", frozen=True)
