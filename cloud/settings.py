"""Typed settings of the cloud: `DATA/cloud.toml`, `TRIPARTY_CLOUD_...`, command line.

The defaults are safe and small: loopback only, bounded bodies, bounded sessions.
"""

from __future__ import annotations

import re
from ipaddress import ip_network
from pathlib import Path
from typing import Any, ClassVar, Literal, Self
from urllib.parse import urlsplit

from pydantic import ByteSize, Field, SecretStr, field_validator, model_validator

from triparty.common.config import RoleSettings, settings_config
from triparty.common.errors import SettingsError, StateError

CONFIG_FILE = "cloud.toml"
LOOPBACK_HOSTS = frozenset({"127.0.0.1", "::1", "localhost"})

MiB = 1 << 20
GiB = 1 << 30


class CloudSettings(RoleSettings):
    """What a cloud is told before it starts."""

    role: ClassVar[str] = "cloud"
    model_config = settings_config("TRIPARTY_CLOUD_")

    data: Path = Field(description="Folder of everything that the cloud keeps (mode 0700).")
    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(8443, ge=0, le=65535, description="0: any free port.")
    url: str | None = Field(None, description="How others reach this cloud; goes into invites.")
    database: str | None = Field(None, description="SQLAlchemy URL; default: SQLite in `data`.")
    blobs: str | None = Field(
        None, description="Folder or object store (s3://...) of blobs; default: `data`/blobs."
    )
    engine: Literal["local", "ray"] = Field("local", description="Where models run.")
    device: str = Field(
        "auto",
        pattern=r"^(auto|cpu|cuda(:\d+)?)$",
        description="Where weights go: cpu, cuda, cuda:1, or auto (all accelerators, memory).",
    )
    max_memory: dict[str, str] = Field(
        {},
        description='Most weights on a device, for auto: {0 = "20GiB", cpu = "64GiB"}.',
    )
    dtype: Literal["float32", "bfloat16", "float16"] | None = Field(
        None, description="Type of the weights; default: as published, which alone is exact."
    )
    replicas: int = Field(1, ge=1, description="Of each model, with the engine ray.")
    max_replicas: int | None = Field(
        None, ge=1, description="Of a model under load; default: as many as `replicas`."
    )
    sessions_per_replica: int = Field(
        32, ge=1, description="Open sessions a replica above which another is added."
    )
    replica_gpus: float = Field(0.0, ge=0, description="GPUs that each replica takes.")
    ray_address: str | None = Field(
        None, description="A running Ray cluster; default: one of the cloud's own, on loopback."
    )
    cert: Path | None = Field(None, description="TLS certificate chain, PEM.")
    key: Path | None = Field(None, description="The certificate's private key, PEM.")
    operator_token: SecretStr | None = Field(
        None, description="For commands against a cloud on another machine."
    )
    metrics_token: SecretStr | None = Field(
        None, min_length=32, description="Opens /metrics, and nothing else; without it, off."
    )
    metrics_names: int = Field(
        0, ge=0, le=1000, description="Models, and principals, that /metrics counts by name."
    )
    trace: Path | None = Field(
        None, description="Write every row that arrives to this file, for the audit."
    )

    max_body_bytes: int = Field(64 * MiB, ge=1024, description="Largest body of rows.")
    max_json_bytes: int = Field(4 * MiB, ge=1024, description="Largest JSON body.")
    max_blob_bytes: int = Field(64 * GiB, ge=1, description="Largest single blob.")
    max_store_bytes: int = Field(
        512 * GiB, ge=1, description="Most blob bytes of one developer, unfinished ones too."
    )
    max_blobs: int = Field(
        100_000, ge=1, description="Most blobs of one developer, unfinished ones too."
    )
    max_uploads: int = Field(
        1_000, ge=1, description="Most unfinished uploads of one developer."
    )
    keep_uploads_days: float = Field(
        7.0, gt=0, description="What was uploaded and belongs to no artifact is removed then."
    )
    max_artifacts: int = Field(10_000, ge=1, description="Most artifacts of one developer.")
    max_devices: int = Field(10_000, ge=1, description="Most devices of one developer.")
    max_invites: int = Field(1_000, ge=1, description="Most open invites of one principal.")
    enrolments_per_minute: int = Field(
        60, ge=1, description="Failed enrolments from one address; see `trusted_proxies`."
    )
    failures_per_minute: int = Field(
        120, ge=1, description="Requests without a good token from one address."
    )
    trusted_proxies: list[str] = Field(
        [], description="Addresses or networks whose X-Forwarded-For is believed."
    )
    requests_per_s_per_principal: float = Field(
        200.0, gt=0, description="Requests a second of one principal; bursts of ten seconds."
    )
    requests_per_s_per_developer: float = Field(
        1000.0, gt=0, description="Requests a second of a developer and all its devices."
    )
    body_timeout_s: float = Field(
        60.0, gt=0, description="Longest silence of a client inside a body."
    )
    min_body_bytes_per_s: int = Field(
        1024, ge=1, description="A body that is slower for `body_timeout_s` is refused."
    )
    max_connections: int = Field(1024, ge=1, description="Most connections at a time.")
    max_connections_per_address: int = Field(
        256, ge=1, description="Of one address, or one /64 of IPv6; see docs for proxies."
    )
    header_timeout_s: float = Field(
        10.0, gt=0, description="Longest TLS handshake, and longest headers of a request."
    )
    keep_alive_s: int = Field(75, ge=1, description="Life of a connection between requests.")
    answer_timeout_s: float = Field(
        60.0, gt=0, description="A client that takes nothing of its answer is cut off then."
    )
    drain_s: float = Field(
        30.0, ge=0, description="Longest time to finish what runs when told to stop."
    )
    token_days: float = Field(365.0, gt=0, le=3650, description="Life of a token.")

    max_rows_per_step: int = Field(4096, ge=1, description="Rows in one step.")
    max_reply_rows: int = Field(64, ge=1, description="Rows of a step with a reply.")
    max_positions: int = Field(8192, ge=1, description="Rows that one session may hold.")
    max_sessions_per_principal: int = Field(16, ge=1)
    max_sessions_per_developer: int = Field(256, ge=1)
    max_sessions: int = Field(512, ge=1)
    session_idle_s: float = Field(600.0, gt=0, description="A silent session ends then.")
    max_steps_per_developer: int = Field(
        128, ge=1, description="Steps of one developer's devices that run or wait."
    )
    max_cache_bytes_per_developer: int = Field(
        64 * GiB, ge=1, description="Memory of one developer's sessions (keys and values)."
    )
    max_models_per_developer: int = Field(
        16, ge=1, description="Loaded models of one developer; unused ones make room."
    )
    max_memory_bytes: ByteSize | None = Field(
        None,
        ge=1,
        description="Memory of models and sessions together, as 24GiB; default: no bound.",
    )
    max_batch_rows: int = Field(8192, ge=1, description="Rows in one pass of the model.")
    threads: int | None = Field(None, ge=1, description="CPU threads; default: all cores.")

    completions_upstream: str | None = Field(
        None, description="URL of a stock engine that answers completions; default: this cloud."
    )
    completions_upstream_key: SecretStr | None = Field(
        None, description="Sent to that engine as a bearer token."
    )
    completions_upstream_model: str = Field(
        "{folder}",
        description="What it calls a model: a text with {developer}, {name}, {version}, "
        "{folder}.",
    )
    completions_upstream_silence_s: float = Field(
        120.0, gt=0, description="An engine that says nothing for so long is given up."
    )

    max_trainers: int = Field(
        1, ge=0, description="Trainings at a time, each a process; 0: jobs wait."
    )
    max_jobs_per_principal: int = Field(
        4, ge=1, description="Jobs of one device that wait, run, or have a result."
    )
    max_jobs_per_developer: int = Field(
        256, ge=1, description="The same of all devices of one developer."
    )
    max_dataset_bytes: int = Field(
        256 * MiB, ge=1024, le=2 * GiB, description="A job's data, as sent and unpacked."
    )
    max_dataset_rows: int = Field(1_000_000, ge=8, description="Samples of a job.")
    max_job_epochs: int = Field(200, ge=1, description="Passes of a training.")
    max_job_weights: int = Field(16_000_000, ge=1, description="Weights of a network.")
    max_job_cpu_s: int = Field(3600, ge=1, description="CPU seconds of one training.")
    max_job_cpu_s_per_day: int = Field(
        14_400, ge=1, description="CPU seconds of one device's trainings from 0:00 UTC on."
    )
    max_trainer_bytes: int = Field(
        4 * GiB, ge=256 * MiB, description="Memory of one training's process."
    )
    trainer_threads: int = Field(1, ge=1, description="CPU threads of a training.")
    trainer_nice: int = Field(10, ge=0, le=19, description="Priority that a training cedes.")
    job_checkpoint_s: float = Field(
        10.0, ge=0, description="Most seconds of a training that a crash costs."
    )
    keep_results_hours: float = Field(
        24.0, gt=0, description="A job that ended goes then, fetched or not."
    )

    @field_validator("trusted_proxies")
    @classmethod
    def _are_networks(cls, given: list[str]) -> list[str]:
        for each in given:
            if ip_network(each).prefixlen == 0:
                raise ValueError(f"{each} is everybody: name the proxy's own address")
        return given

    @field_validator("max_memory")
    @classmethod
    def _are_sizes(cls, given: dict[str, str]) -> dict[str, str]:
        for device, size in given.items():
            if device != "cpu" and not device.isdecimal():
                raise ValueError(f"{device!r} is no device: expected cpu, or a number of one")
            if not re.fullmatch(r"\d+(\.\d+)?(GiB|MiB|KiB|GB|MB|KB)", size):
                raise ValueError(f"{size!r} is no size: expected the like of 20GiB")
        return given

    @model_validator(mode="after")
    def _is_placed(self) -> Self:
        if self.max_memory and self.device != "auto":
            raise SettingsError(
                f"max_memory is for device auto, got device {self.device}: leave one out"
            )
        return self

    @field_validator("completions_upstream")
    @classmethod
    def _is_engine(cls, given: str | None) -> str | None:
        """Without credentials, which would be shown with the address."""
        if given is not None and "@" in given:
            raise SettingsError(
                "completions_upstream is an address alone: its key is completions_upstream_key"
            )
        return given if given is None else check_url(given.rstrip("/").removesuffix("/v1"))

    @field_validator("completions_upstream_model")
    @classmethod
    def _names_models(cls, given: str) -> str:
        try:
            given.format(developer="", name="", version=1, folder="")
        except (LookupError, ValueError, AttributeError) as error:
            raise ValueError(f"{given!r}: it has no such part {error}") from error
        return given

    @property
    def database_url(self) -> str:
        """The SQLAlchemy URL of the database."""
        return self.database or f"sqlite:///{self.data / 'cloud.db'}"

    @property
    def blob_folder(self) -> Path | None:
        """The folder of the blobs; None: they are in an object store."""
        if self.blobs is None:
            return self.data / "blobs"
        scheme, _, rest = self.blobs.rpartition("://")
        return Path(rest) if scheme in ("", "file") else None

    @property
    def model_folder(self) -> Path:
        """The folder in which published models are laid out for the engine."""
        return self.data / "models"

    @property
    def job_folder(self) -> Path:
        """The folder of trainings and their data; always on this machine, never backed up."""
        return self.data / "jobs"

    @property
    def certificate_files(self) -> tuple[Path, Path] | None:
        """Certificate and key: the given ones, else those that `cloud init` made, else None."""
        if (self.cert is None) != (self.key is None):
            raise SettingsError("a certificate and its key go together: give --cert and --key")
        if self.cert and self.key:
            return self.cert, self.key
        made = self.data / "tls" / "cert.pem", self.data / "tls" / "key.pem"
        return made if all(file.exists() for file in made) else None

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can connect."""
        return self.host in LOOPBACK_HOSTS


def load_settings(data: Path, **command_line: Any) -> CloudSettings:
    """The settings of an initialised data folder, good in any working directory.

    Raises:
        StateError: `cloud init` was not run here.
        SettingsError: a wrong key or value.
    """
    file = data / CONFIG_FILE
    if not file.exists():
        raise StateError(f"no cloud in {data}: run 'triparty cloud init --data {data}' first")
    settings = CloudSettings.load(file, data=data.absolute(), **command_line)
    if settings.url:
        check_url(settings.url)
    return settings


def check_url(url: str) -> str:
    """`url` without a trailing slash, if it is one under which a cloud can be reached.

    Raises:
        SettingsError: no http(s) scheme, no host, or a path, query or user in it.
    """
    parts = urlsplit(url)
    plain = not (parts.path.strip("/") or parts.query or parts.fragment or parts.username)
    if parts.scheme not in ("http", "https") or not parts.hostname or not plain:
        raise SettingsError(f"url {url!r}: expected https://HOST[:PORT]")
    return url.rstrip("/")
