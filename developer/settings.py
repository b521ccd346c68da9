"""The developer's settings."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from pydantic import Field

from triparty.common.config import HomePath, RoleSettings, settings_config


class DeveloperSettings(RoleSettings):
    """Settings of a developer; also `TRIPARTY_DEVELOPER_...` variables.

    Attributes:
        home: keys, access and records of this developer.
        passphrase: of the private keys; better in the environment than in a file.
        artifact_days: how long a published artifact may be used. Longer is less work, shorter
            takes a forgotten one out of use sooner.
        latest_days: how long the latest statement counts. Shorter keeps a cloud from hiding
            news for long; any developer command on the cloud renews it.
        key_days: how long a publishing key counts.
    """

    role: ClassVar[str] = "developer"
    model_config = settings_config("TRIPARTY_DEVELOPER_")

    home: HomePath = Field(
        default_factory=lambda: Path.home() / ".local/share/triparty/developer"
    )
    passphrase: str | None = Field(default=None, repr=False)
    artifact_days: int = Field(default=365, ge=1, le=3650)
    latest_days: int = Field(default=30, ge=1, le=365)
    key_days: int = Field(default=730, ge=1, le=3650)
