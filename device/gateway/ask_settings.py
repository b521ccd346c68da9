"""How questions about a gateway's events are understood."""

from __future__ import annotations

from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import Field, field_validator

from triparty.device.gateway.table import Name, Table


class AskSettings(Table):
    """How questions about events are understood."""

    model: str | None = Field(
        default=None, description="Protected sentence encoder that tells what words mean."
    )
    phrase_with: str | None = Field(
        default=None,
        description="Protected model that phrases answers; it gets the answer's facts.",
    )
    timezone: str = Field(
        default="UTC", description="Where the cameras are, as Europe/Berlin: what 'noon' is."
    )
    descriptions: dict[Name, str] = Field(
        default_factory=dict,
        max_length=500,
        description="What cameras, zones and classes are, in plain words; commas separate.",
    )

    @field_validator("timezone")
    @classmethod
    def _known(cls, name: str) -> str:
        try:
            ZoneInfo(name)
        except (ZoneInfoNotFoundError, ValueError, OSError) as error:
            raise ValueError("no time zone has this name: give one as Europe/Berlin") from error
        return name
