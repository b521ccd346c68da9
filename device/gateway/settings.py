"""What `watch` is told: one TOML file, checked whole before anything is opened.

```toml
[defaults]                 # what every camera has unless it says otherwise
stall_s = 10

[[cameras]]
name = "yard"
url = "rtsp://viewer@10.0.0.7/stream"
password_file = "yard.password"
```

A key that nobody knows is an error that names the nearest known one.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import quote

from pydantic import (
    AfterValidator,
    Field,
    ValidationError,
    model_validator,
)

from triparty.common.errors import SettingsError
from triparty.common.hosts import LOOPBACK_NAMES
from triparty.device.events.secret import Secret
from triparty.device.gate.optimizer import Leftover
from triparty.device.gate.traces import Measure
from triparty.device.gateway.ask_settings import AskSettings
from triparty.device.gateway.outlet_settings import MqttSettings, WebhookSettings
from triparty.device.gateway.polygons import Point, check_polygon
from triparty.device.gateway.table import Name, Table, UserPath
from triparty.device.streams.addresses import Address
from triparty.device.streams.backoff import Backoff
from triparty.device.streams.redaction import redacted
from triparty.device.streams.sources import SourceOptions

MiB = 1 << 20


class CameraDefaults(Table):
    """What cameras have in common, unless one says otherwise."""

    tasks: tuple[Name, ...] | None = Field(
        default=None, description="Asked of it; default: all."
    )
    timeout_s: float = Field(
        default=5.0, gt=0, le=120, description="Of each wait for the network."
    )
    stall_s: float = Field(
        default=10.0,
        gt=0,
        le=600,
        description="Without a picture for so long it is called stalled.",
    )
    retry_s: float = Field(
        default=1.0, gt=0, le=600, description="Mean wait after a first failure."
    )
    retry_longest_s: float = Field(
        default=60.0, gt=0, le=3600, description="Where doubling stops."
    )
    loop: bool = Field(
        default=False, description="Begin a file anew at its end, for demonstrations."
    )
    whole: bool = Field(default=False, description="Decode all of it, gated or not.")
    entry_wait_s: float = Field(
        default=30.0,
        gt=0,
        le=3600,
        description="If no entry comes for so long and none is within reach, decode all of it.",
    )
    looks_per_s: float = Field(
        default=5.0,
        gt=0,
        le=240,
        description="Most frames a second for models, if decoded whole.",
    )
    hold_mib: int = Field(
        default=64, ge=1, le=4096, description="Most memory for compressed packets of it."
    )
    before_s: float = Field(
        default=5.0, ge=0, le=600, description="Seconds of a clip before its event, at least."
    )
    after_s: float = Field(
        default=5.0, ge=0, le=600, description="Seconds of a clip after its event."
    )
    ffmpeg: dict[str, str] = Field(
        default_factory=dict, description="Further options for FFmpeg's demuxer."
    )


def _simple(points: tuple[Point, ...]) -> tuple[Point, ...]:
    check_polygon(points)
    return points


Polygon = Annotated[tuple[Point, ...], AfterValidator(_simple)]


class ZoneSettings(Table):
    """A part of a camera's picture in which tasks are asked of their own."""

    name: Name
    polygon: Polygon = Field(description="Corners [x, y] in shares of the picture.")
    tasks: tuple[Name, ...] | None = Field(
        default=None, description="Asked in it; default: all of the camera."
    )


class MaskSettings(Table):
    """A part of a camera's picture that is ignored."""

    polygon: Polygon = Field(description="Corners [x, y] in shares of the picture.")


class CameraSettings(CameraDefaults):
    """One camera or file."""

    name: Name
    url: str = Field(repr=False, description="A path, or http(s):// or rtsp(s)://.")
    password_file: UserPath | None = Field(
        default=None,
        description="Holds the password alone; then the address needs only the user.",
    )
    password_env: str | None = Field(default=None, description="The same in a variable.")
    zones: tuple[ZoneSettings, ...] = Field(
        default=(), max_length=64, description="Parts of its picture asked of their own."
    )
    masks: tuple[MaskSettings, ...] = Field(
        default=(), max_length=64, description="Parts of its picture that are ignored."
    )

    @model_validator(mode="after")
    def _one_password(self) -> Self:
        if self.password_file and self.password_env:
            raise ValueError("give password_file or password_env, not both")
        return self

    def address(self, folder: Path) -> Address:
        """Where it is, with its password.

        Args:
            folder: of the configuration; relative paths are relative to it.

        Raises:
            SettingsError: an unknown scheme, or a password that cannot be read.
        """
        url = self.url
        secret = self._password(folder)
        if secret is not None:
            scheme, found, rest = url.partition("://")
            user, at, host = rest.rpartition("@")
            if not (found and at) or ":" in user:
                raise SettingsError(
                    f"camera '{self.name}': with a password of its own the address must be "
                    f"SCHEME://USER@HOST..., got {redacted(url)}"
                )
            password = quote(secret, safe="")
            url = f"{scheme}://{user}:{password}@{host}"
        if "://" not in url and not url.startswith("file:"):
            url = str(folder / Path(url).expanduser())
        return Address.of(url)

    def _password(self, folder: Path) -> str | None:
        return Secret(
            f"camera '{self.name}': password", self.password_file, self.password_env
        ).read(folder)

    def source_options(self) -> SourceOptions:
        """How its stream is read."""
        return SourceOptions(
            loop=self.loop,
            timeout_s=self.timeout_s,
            stall_s=self.stall_s,
            backoff=Backoff(self.retry_s, longest_s=max(self.retry_s, self.retry_longest_s)),
            hold_bytes=self.hold_mib * MiB,
            ffmpeg=self.ffmpeg,
        )


class GateSettings(Table):
    """What is decoded."""

    policy: str = Field(
        default="ours", description="What is worth decoding; see docs/gating.md."
    )
    leftover: Leftover | None = Field(
        default=None,
        description="What becomes of what does not fit; default: the policy's own.",
    )
    artifact: UserPath | None = Field(default=None, description="What 'gate fit' wrote.")
    budget_ms: float = Field(
        default=20.0,
        gt=0,
        le=10_000,
        description="CPU ms for decoding per round, all cameras together.",
    )
    observe_dependencies: bool = Field(
        default=False,
        description="Models also look at frames decoded only because a chosen one needs them.",
    )
    audit_share: float = Field(
        default=0.02,
        ge=0,
        le=0.5,
        description="Of the budget, for groups decoded whole to learn what gating misses.",
    )
    tick_ms: float = Field(default=40.0, ge=5, le=1000, description="Length of a round.")
    workers: int = Field(default=1, ge=1, le=256, description="Decoding threads.")
    max_staleness_s: float | None = Field(
        default=30.0,
        gt=0,
        description="No camera goes unseen for longer, if the budget allows.",
    )


class ModelSettings(Table):
    """A model that looks at frames."""

    name: Name
    file: UserPath | None = Field(default=None, description="A detector in ONNX.")
    python: str | None = Field(
        default=None,
        pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$",
        description="module:function. Runs that code with all rights of this process.",
    )
    pulled: bool = Field(
        default=False, description="A detector that the pulled plan fetches from the cloud."
    )
    least_score: float = Field(
        default=0.35, ge=0, le=1, description="Less certain objects are dropped."
    )
    labels: tuple[str, ...] | Literal["coco"] = Field(
        default=(), description="Names of its classes, in order, or 'coco' for the 80 of COCO."
    )

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if (self.file is not None) + (self.python is not None) + self.pulled != 1:
            raise ValueError("give one of file, python and pulled")
        return self


class TaskSettings(Table):
    """A question that is asked of every camera, and what is an event."""

    name: Name
    model: Name
    measure: Measure = "presence"
    classes: tuple[str | int, ...] = Field(default=(), description="That count; default: all.")
    step: float = Field(default=1.0, gt=0, description="For 'value': how much is a change.")
    events: bool = Field(default=True, description="Whether changes of its answer are events.")
    hold_s: float = Field(
        default=0.5, ge=0, le=3600, description="A new answer must hold so long to be an event."
    )
    looks: int = Field(default=2, ge=1, le=1000, description="And must be seen so often.")


class FilterSettings(Table):
    """An input filter in front of a model: it answers where the model need not look."""

    name: Name
    artifact: UserPath = Field(
        description="A folder that 'filter fit' wrote, or the name of a pulled filter."
    )
    model: Name = Field(description="That is not run where the filter answers.")
    cameras: tuple[Name, ...] | None = Field(
        default=None, description="Whose frames it looks at; default: all."
    )
    audit_share: float = Field(
        default=0.02,
        ge=0,
        le=1,
        description="Of the frames, drawn at random, that the model sees whatever it says.",
    )
    cache: Literal["camera", "shared"] = Field(
        default="camera", description="Whose earlier results a reuse filter may give."
    )
    samples: UserPath | None = Field(
        default=None, description="Folder for what 'filter fit' learns from: pictures."
    )
    samples_mib: int = Field(
        default=64, ge=1, description="Most room for them; the oldest go first."
    )
    uncertain_share: float = Field(
        default=0.05,
        ge=0,
        le=0.5,
        description="Of the frames, the least certain, that the model labels for samples.",
    )

    def covers(self, camera: str) -> bool:
        """Whether it looks at the frames of a camera."""
        return self.cameras is None or camera in self.cameras


class PlanSettings(Table):
    """A plan: of the models only the chosen ones are run, links predict the others.

    Without an artifact all models are run as ever, and what they said is recorded.
    """

    artifact: UserPath | None = Field(
        default=None,
        description="A folder that 'links plan' wrote, or the name of a pulled plan; without "
        "one what models say is only recorded.",
    )
    links: UserPath | None = Field(
        default=None,
        description="Folder with a folder of links a model; default: those that were pulled.",
    )
    memory_mib: float | None = Field(
        default=None, ge=0, description="Budget for choosing anew; default: the plan's."
    )
    latency_ms: float | None = Field(default=None, ge=0, description="The same, for one frame.")
    every_frames: int = Field(
        default=0, ge=0, description="Frames after which models are chosen anew; 0: never."
    )
    profiled_share: float = Field(
        default=0.01,
        gt=0,
        le=1,
        description="Of these frames, or without an artifact of all, on which all models run.",
    )
    least_profiled: int = Field(
        default=30, ge=2, description="Frames on which all are run at least."
    )
    least_gain: float = Field(
        default=0.01, ge=0, le=1, description="Of the expected accuracy, for a change."
    )
    period_s: float = Field(
        default=3600.0, gt=0, description="For how long a choice is taken to hold."
    )
    retry_s: float = Field(
        default=60.0, ge=0, description="A model that failed is left alone for so long."
    )
    records: UserPath | None = Field(
        default=None, description="Folder for what all models said, to train links with."
    )
    most_records: int = Field(
        default=10_000, ge=2, description="Frames that are kept there; the oldest go first."
    )

    @model_validator(mode="after")
    def _one_use(self) -> Self:
        if self.artifact is None:
            self._check_recording()
        elif self.records is not None and not self.every_frames:
            raise ValueError("records need every_frames: only then all models are run")
        return self

    def _check_recording(self) -> None:
        if self.records is None:
            raise ValueError(
                "give artifact, a plan; or records, a folder for what models say until there "
                "is one"
            )
        told = {"artifact", "records", "most_records", "profiled_share", "retry_s"}
        if idle := sorted(self.model_fields_set - told):
            raise ValueError(
                f"{idle[0]} is for a plan: give its artifact, or leave {idle[0]} out to record"
            )


class ResultSettings(Table):
    """Where results go. What they say is confidential: files are of mode 0600."""

    lines: UserPath | None = Field(
        default=None, description="JSON lines; '-' for standard output."
    )
    database: str | None = Field(
        default=None, repr=False, description="Path of a SQLite file, or PostgreSQL's URL."
    )
    database_password_file: UserPath | None = Field(
        default=None, description="Holds the password of PostgreSQL's user alone."
    )
    database_password_env: str | None = Field(
        default=None, description="The same in a variable."
    )
    keep_days: float = Field(
        default=7.0, gt=0, le=3650, description="Older rows, clips and snapshots are deleted."
    )
    clips: UserPath | None = Field(default=None, description="Folder for clips of events.")
    clips_mib: int = Field(
        default=1024, ge=1, description="Most room for clips; the oldest go first."
    )
    snapshots: UserPath | None = Field(
        default=None, description="Folder for pictures of events, JPEG."
    )
    snapshots_mib: int = Field(
        default=256, ge=1, description="Most room for them; the oldest go first."
    )
    snapshot_pixels: int = Field(
        default=1280,
        ge=64,
        le=8192,
        description="Longest side of a picture; wider ones shrink.",
    )
    traces: UserPath | None = Field(
        default=None, description="Folder for traces, to train gates from."
    )


class MetricSettings(Table):
    """Prometheus metrics. They tell when something happened: loopback by default."""

    port: int | None = Field(default=None, ge=0, le=65535, description="0: any free port.")
    host: str = Field(default="127.0.0.1", description="Address to listen on.")


class PageSettings(Table):
    """The web page. It shows what cameras saw: loopback by default, and always a login."""

    port: int = Field(default=8466, ge=0, le=65535, description="0: any free port.")
    host: str = Field(default="127.0.0.1", description="Address to listen on.")
    names: tuple[str, ...] = Field(
        default=(), description="What the page is called by those who ask, beside its address."
    )
    password_file: UserPath = Field(
        default=Path("page.password"), description="Keeps the hash of the password."
    )
    certificate: UserPath | None = Field(default=None, description="TLS chain, PEM.")
    key: UserPath | None = Field(default=None, description="The certificate's key, PEM.")
    behind_tls: bool = Field(
        default=False,
        description="A proxy on this machine ends TLS: cookies are for TLS alone.",
    )
    insecure_no_tls: bool = Field(
        default=False, description="Show it to a network in the clear, password and all."
    )

    @model_validator(mode="after")
    def _is_safe(self) -> Self:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("a certificate and its key go together")
        if not (self.is_local or self.certificate or self.insecure_no_tls):
            raise ValueError(
                f"{self.host} is not loopback: give certificate and key, or accept with "
                "insecure_no_tls = true that everyone on the network can read all of it"
            )
        return self

    @property
    def is_local(self) -> bool:
        """Whether only this machine can connect."""
        return self.host in LOOPBACK_NAMES

    @property
    def is_secure(self) -> bool:
        """Whether browsers reach it by TLS alone."""
        return self.certificate is not None or self.behind_tls


class ReloadSettings(Table):
    """When the file is read again; on SIGHUP it always is."""

    on_change: bool = Field(default=False, description="When it is another file than before.")


class WatchSettings(Table):
    """The whole file.

    Attributes:
        folder: of the file; relative paths of cameras, models, filters and results are
            relative to it.
    """

    folder: Path = Path()
    defaults: CameraDefaults = CameraDefaults()
    cameras: tuple[CameraSettings, ...] = Field(min_length=1)
    gate: GateSettings = GateSettings()
    models: tuple[ModelSettings, ...] = ()
    tasks: tuple[TaskSettings, ...] = ()
    filters: tuple[FilterSettings, ...] = ()
    plan: PlanSettings | None = None
    results: ResultSettings = ResultSettings()
    metrics: MetricSettings = MetricSettings()
    page: PageSettings | None = None
    mqtt: MqttSettings = MqttSettings()
    ask: AskSettings = AskSettings()
    webhooks: tuple[WebhookSettings, ...] = ()
    reload: ReloadSettings = ReloadSettings()

    @classmethod
    def load(cls, file: Path, **changes: Any) -> WatchSettings:
        """Reads a configuration.

        Args:
            file: TOML.
            **changes: values of `gate` that the command line gives; None means not given.

        Raises:
            SettingsError: a key that nobody knows, a value that cannot be, a name that is
                used twice or refers to nothing; the message names key and remedy.
        """
        try:
            text = file.read_text(encoding="utf-8")
        except OSError as error:
            raise SettingsError(f"cannot read {file}: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise SettingsError(f"{file} is not valid TOML: {error}") from error
        return cls.parse(text, file, **changes)

    @classmethod
    def parse(cls, text: str, file: Path, **changes: Any) -> WatchSettings:
        """Reads the text of a configuration.

        Args:
            text: TOML.
            file: that holds it, or will; for messages and relative paths.
            **changes: as in `load`.

        Raises:
            SettingsError: as in `load`.
        """
        try:
            document = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise SettingsError(f"{file} is not valid TOML: {error}") from error
        _refuse_unknown(document, str(file))
        given = {key: value for key, value in changes.items() if value is not None}
        document["gate"] = document.get("gate", {}) | given
        defaults = document.get("defaults", {})
        cameras = document.get("cameras", [])
        document["cameras"] = [defaults | camera for camera in cameras]
        try:
            settings = cls(**document, folder=file.resolve().parent)
        except ValidationError as wrong:
            raise SettingsError(f"{file}: {_first(wrong)}") from None
        settings._check_names(file)
        return settings

    def _check_names(self, file: Path) -> None:
        for kind, names in (
            ("camera", [camera.name for camera in self.cameras]),
            ("model", [model.name for model in self.models]),
            ("task", [task.name for task in self.tasks]),
            ("filter", [one.name for one in self.filters]),
            ("webhook", [hook.name for hook in self.webhooks]),
        ):
            if twice := {name for name in names if names.count(name) > 1}:
                raise SettingsError(f"{file}: two {kind}s are called '{min(twice)}'")
        models = [model.name for model in self.models]
        tasks = [task.name for task in self.tasks]
        for task in self.tasks:
            _refer(f"{file}: task '{task.name}'", "model", task.model, models)
        for camera in self.cameras:
            self._check_camera(camera, f"{file}: camera '{camera.name}'", tasks)
        self._check_filters(file, models)
        self._check_webhooks(file, tasks)

    def _check_webhooks(self, file: Path, tasks: list[str]) -> None:
        if self.webhooks and self.results.database is None:
            raise SettingsError(
                f"{file}: webhooks need [results] database: what was not delivered waits there"
            )
        for hook in self.webhooks:
            for name in hook.tasks:
                _refer(f"{file}: webhook '{hook.name}'", "task", name, tasks)

    def _check_camera(self, camera: CameraSettings, where: str, tasks: list[str]) -> None:
        for name in camera.tasks or ():
            _refer(where, "task", name, tasks)
        asked = tasks if camera.tasks is None else list(camera.tasks)
        zones = [zone.name for zone in camera.zones]
        if twice := {name for name in zones if zones.count(name) > 1}:
            raise SettingsError(f"{where}: two zones are called '{min(twice)}'")
        for zone in camera.zones:
            for name in zone.tasks or ():
                _refer(f"{where}, zone '{zone.name}'", "task", name, asked)

    def _check_filters(self, file: Path, models: list[str]) -> None:
        cameras = [camera.name for camera in self.cameras]
        taken = dict[tuple[str, str] | Path, str]()
        for one in self.filters:
            where = f"{file}: filter '{one.name}'"
            _refer(where, "model", one.model, models)
            for name in one.cameras or ():
                _refer(where, "camera", name, cameras)
            if one.model not in {task.model for task in self.tasks}:
                raise SettingsError(f"{where}: no task asks the model '{one.model}'")
            for camera in filter(one.covers, cameras):
                other = taken.setdefault((one.model, camera), one.name)
                if other != one.name:
                    raise SettingsError(
                        f"{where} and '{other}' both stand before '{one.model}' for camera "
                        f"'{camera}': give each its own cameras"
                    )
            if one.samples is not None:
                other = taken.setdefault(one.samples, one.name)
                if other != one.name:
                    raise SettingsError(
                        f"{where} and '{other}' have the same folder of samples"
                    )


_TABLES: dict[str, type[Table]] = {
    "defaults": CameraDefaults,
    "gate": GateSettings,
    "plan": PlanSettings,
    "results": ResultSettings,
    "metrics": MetricSettings,
    "page": PageSettings,
    "mqtt": MqttSettings,
    "ask": AskSettings,
    "reload": ReloadSettings,
}
_LISTS: dict[str, type[Table]] = {
    "cameras": CameraSettings,
    "models": ModelSettings,
    "tasks": TaskSettings,
    "filters": FilterSettings,
    "webhooks": WebhookSettings,
}


def _refuse_unknown(document: Mapping[str, Any], where: str) -> None:
    _known(document, [*_TABLES, *_LISTS], where)
    for name, table in _TABLES.items():
        if isinstance(inner := document.get(name, {}), Mapping):
            _known(inner, table.model_fields, f"[{name}] of {where}")
    for name, each, number in _listed(document, where):
        _known(each, _LISTS[name].model_fields, f"[[{name}]] {number} of {where}")
        if name == "cameras":
            _refuse_unknown_places(each, f"camera {number} of {where}")


def _refuse_unknown_places(camera: Mapping[str, Any], where: str) -> None:
    for name, table in (("zones", ZoneSettings), ("masks", MaskSettings)):
        found = camera.get(name, [])
        if not isinstance(found, list) or not all(isinstance(e, Mapping) for e in found):
            raise SettingsError(f"'{name}' must be tables [[cameras.{name}]] of {where}")
        for each in found:
            _known(each, table.model_fields, f"[[cameras.{name}]] of {where}")


def _listed(
    document: Mapping[str, Any], where: str
) -> Iterator[tuple[str, Mapping[str, Any], int]]:
    for name in _LISTS:
        found = document.get(name, [])
        if not isinstance(found, list) or not all(isinstance(e, Mapping) for e in found):
            raise SettingsError(f"'{name}' must be tables [[{name}]] in {where}")
        for number, each in enumerate(found, 1):
            yield name, each, number


def _known(given: Mapping[str, Any], names: Any, where: str) -> None:
    for name in given:
        if name not in names:
            near = get_close_matches(name, list(names), n=1, cutoff=0.0)
            raise SettingsError(
                f"unknown key '{name}' in {where}; the nearest known one is {near[0]}"
            )


def _refer(where: str, kind: str, name: str, names: list[str]) -> None:
    if name not in names:
        near = get_close_matches(name, names, n=1, cutoff=0.0)
        hint = f"the nearest is '{near[0]}'" if near else f"there is no [[{kind}s]]"
        raise SettingsError(f"{where} names the unknown {kind} '{name}'; {hint}")


def _first(wrong: ValidationError) -> str:
    """The first thing that is wrong, without credentials."""
    error = wrong.errors()[0]
    key = ".".join(str(part) for part in error["loc"])
    if error["type"] in ("missing", "value_error") or "url" in error["loc"]:
        return f"'{key}': {error['msg']}"
    return f"'{key}': {error['msg']}, got {redacted(repr(error.get('input')))}"
