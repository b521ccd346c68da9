"""The device's settings."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from triparty.common.config import HomePath, RoleSettings, settings_config
from triparty.common.decoys import DecoyKind
from triparty.common.shielding import MAX_NOISE
from triparty.device.inference.shields import Shields
from triparty.device.keystore import Keys

if TYPE_CHECKING:
    from triparty.device.client import Device


class DeviceSettings(RoleSettings):
    """Settings of a device; also `TRIPARTY_DEVICE_...` variables.

    Attributes:
        home: keys, access and bundles of this device.
        passphrase: of the private keys; better in the environment than in a file.
        keys: where private keys should be: `keyring`, `file`, or `auto`: wherever they are, new
            ones in the system's keyring if there is one.
        engine_key: API key of the stock engine that `generate --engine-url` names.
        api_key: what clients of `serve` have to bring; None asks for none.
        noise: Gaussian noise on each element of a row, as a share of the row's root mean
            square; costs accuracy.
        bfloat16_rows: whether rows are rounded to bfloat16 on the wire.
        length_block: rows that requests and sessions are multiples of; 1 shows all lengths.
        decoys: texts that are asked beside each real one; each costs what the real one does.
        decoy_texts: file of texts to draw them from, one a line.
        watch: the configuration of this device's gateway, whose events `ask` is about.
        decoy_kind: `text`, `bigram` or `unigram`: whole lines, pairs or single tokens of it.
    """

    role: ClassVar[str] = "device"
    model_config = settings_config("TRIPARTY_DEVICE_")

    home: HomePath = Field(default_factory=lambda: Path.home() / ".local/share/triparty/device")
    passphrase: str | None = Field(default=None, repr=False)
    keys: Keys = Keys.AUTO
    engine_key: str | None = Field(default=None, repr=False)
    api_key: str | None = Field(default=None, repr=False, min_length=1)
    noise: float = Field(default=0.0, ge=0, le=MAX_NOISE)
    bfloat16_rows: bool = False
    length_block: int = Field(default=1, ge=1, le=4096)
    decoys: int = Field(default=0, ge=0, le=64)
    decoy_texts: Path | None = None
    decoy_kind: DecoyKind = DecoyKind.TEXT
    watch: Path | None = None

    def device(self) -> Device:
        """The device of these settings."""
        from triparty.device.client import Device

        return Device(
            self.home, passphrase=self.passphrase, keys=self.keys, shields=self.shields()
        )

    def shields(self) -> Shields:
        """What requests are shielded with."""
        return Shields(
            noise=self.noise,
            to_bfloat16=self.bfloat16_rows,
            block=self.length_block,
            decoys=self.decoys,
            decoy_texts=self.decoy_texts,
            decoy_kind=self.decoy_kind,
        )
