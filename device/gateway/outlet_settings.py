"""Where events are sent to: off unless configured."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Annotated, Self

from pydantic import AfterValidator, Field, model_validator

from triparty.device.events.event import Kind
from triparty.device.gateway.table import Name, Table, UserPath


def _network(text: str) -> str:
    ip_network(text)
    return text


Network = Annotated[str, AfterValidator(_network)]
TOPIC = r"^[A-Za-z0-9_-]{1,64}$"


class MqttSettings(Table):
    """A broker that hears events and the state of every camera, task and zone."""

    host: str | None = Field(default=None, description="Of the broker; none without it.")
    port: int | None = Field(
        default=None, ge=1, le=65535, description="Default: 1883, with TLS 8883."
    )
    tls: bool = Field(default=False, description="Whether to speak TLS.")
    ca_file: UserPath | None = Field(
        default=None, description="Certificates to trust; default: the system's."
    )
    user: str | None = None
    password_file: UserPath | None = Field(default=None, description="Holds it alone.")
    password_env: str | None = Field(default=None, description="The same in a variable.")
    site: str = Field(
        default="home", pattern=TOPIC, description="Of this gateway; no other may have it."
    )
    topic: str = Field(default="triparty", pattern=TOPIC, description="All topics begin so.")
    discovery: str | None = Field(
        default="homeassistant",
        pattern=r"^[A-Za-z0-9_-]{0,64}$",
        description="Prefix of Home Assistant's discovery; empty for none.",
    )

    @model_validator(mode="after")
    def _password_of_a_user(self) -> Self:
        if (self.password_file or self.password_env) and self.user is None:
            raise ValueError("a password without a user")
        return self


class WebhookSettings(Table):
    """An address that each event is posted to, at least once."""

    name: Name
    url: str = Field(repr=False, pattern=r"^https?://[^\s/@?#]+(/[^\s#]*)?$")
    secret_file: UserPath | None = Field(
        default=None, description="Holds the key of the signature alone."
    )
    secret_env: str | None = Field(default=None, description="The same in a variable.")
    ca_file: UserPath | None = Field(
        default=None, description="Certificates to trust; default: the public ones."
    )
    allow: tuple[Network, ...] = Field(
        default=(), description="Networks of private addresses that it may be at."
    )
    cameras: tuple[Name, ...] = Field(default=(), description="Of these alone; default: all.")
    tasks: tuple[Name, ...] = Field(default=(), description="Of these alone; default: all.")
    kinds: tuple[Kind, ...] = Field(default=(), description="Of these alone; default: all.")
    timeout_s: float = Field(default=10.0, gt=0, le=120, description="Of each try.")
    give_up_h: float = Field(
        default=72.0, gt=0, le=8760, description="When an event is not tried any more."
    )
    most_waiting: int = Field(
        default=10_000, ge=1, description="Most events that wait; the oldest go first."
    )

    @model_validator(mode="after")
    def _one_secret(self) -> Self:
        if (self.secret_file is None) == (self.secret_env is None):
            raise ValueError("give secret_file or secret_env, and not both")
        return self
