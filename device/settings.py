"""The device's settings."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from pydantic import Field

from triparty.common.config import HomePath, RoleSettings, settings_config


class DeviceSettings(RoleSettings):
    """Settings of a device; also `TRIPARTY_DEVICE_...` variables.

    Attributes:
        home: keys, access and bundles of this device.
        passphrase: of the private keys; better in the environment than in a file.
        engine_key: API key of the stock engine that `generate --engine-url` names.
    """

    role: ClassVar[str] = "device"
    model_config = settings_config("TRIPARTY_DEVICE_")

    home: HomePath = Field(default_factory=lambda: Path.home() / ".local/share/triparty/device")
    passphrase: str | None = Field(default=None, repr=False)
    engine_key: str | None = Field(default=None, repr=False)
