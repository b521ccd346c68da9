"""A filter that the cloud trains: what leaves the device, the wait, whether it is taken.

1. The samples are checked here, and a share of them is kept back: it never leaves.
2. The others go to the cloud as inputs, or as features of a first stage that stays here.
3. The device waits, through cuts and restarts of either side; the same request goes on.
4. The result must be signed, for this very job, by the key pinned at enrolment, and be the
   network that was asked for. Its thresholds are set on what was kept back.
5. Only a filter that is no worse there takes the place of one that is in use.
6. The cloud removes the data when the training ends, and everything when it is told so here.

HOME/jobs/ID/   one request under way: its signed data set's manifest, its stage; mode 0700
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final, Literal, get_args

from triparty.common.artifacts import (
    Manifest,
    describe_folder,
    read_signed,
    verify_folder,
    write_artifact,
)
from triparty.common.datasets import DATASET_FILE, Limits, check_dataset, write_dataset
from triparty.common.entries import Kind
from triparty.common.errors import (
    BlobMissingError,
    CertificateError,
    CloudError,
    DatasetError,
    ManifestError,
    NotFoundError,
    StateError,
    TransportError,
    TripartyError,
    UnavailableError,
)
from triparty.common.files import make_private_folder, write_private
from triparty.common.filters import LIMIT_BYTES
from triparty.common.jobs import check_job_id, new_job_id, sign_dataset, verify_result
from triparty.common.nets.blocks import blocks_of
from triparty.common.nets.calibration import Calibration
from triparty.common.nets.course import Course
from triparty.common.nets.design import Design
from triparty.common.nets.inputs import Modality
from triparty.common.nets.samples import Samples, check_samples, gather
from triparty.common.replies import JobRecord
from triparty.common.signing import PublicKey, to_base64url
from triparty.common.transport import CloudClient
from triparty.common.trust import SignedDocument
from triparty.device.filters.adoption import adopted, calibrated_on
from triparty.device.filters.artifact import FilterArtifact, FilterTask
from triparty.device.filters.filter import Measures, Results, modalities_of, tasks_of
from triparty.device.filters.first_stage import FirstStage
from triparty.device.filters.fitting import (
    Recipe,
    Updated,
    labels_of,
    parted,
    specifications,
)
from triparty.device.filters.measures import Measure
from triparty.device.filters.session import Session
from triparty.device.home import Home

Sending = Literal["nothing", "features", "inputs"]
SENDINGS: Final[tuple[str, ...]] = get_args(Sending)
CLOUD_LEARNS: Final[Mapping[str, str]] = {
    "nothing": "the cloud learns nothing: the filter is trained on this device",
    "features": "the cloud learns how many inputs there are, features of them (a random layer "
    "that stays here), which are alike, and for which the model was needed or agreed; features "
    "can be inverted by whoever knows enough of the inputs",
    "inputs": "the cloud learns the inputs themselves, names and shapes included, and for "
    "which the model was needed or agreed; all but the share that is kept back here",
}
"""What each choice tells the cloud, in a line."""
_LIMITS: Final = Limits(rows=1 << 31, bytes=2 << 30)  # the cloud's own are lower
_LIFE: Final = timedelta(days=7)
_PATIENCE_S: Final = 600.0
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.5, 15.0
_REQUEST_FILE: Final = "request.json"
_UPLOADS: Final = 3


@dataclass(frozen=True)
class Wanted:
    """A filter that is wanted.

    Attributes:
        samples: inputs as the device has them, and labels; checked.
        design: of a network for these inputs.
        measures: of redundancy, by task.
        recipe: kind, target accuracy, sizes.
        course: of the training.
        sending: `inputs` or `features`.
    """

    samples: Samples
    design: Design
    measures: Mapping[str, Measure]
    recipe: Recipe
    course: Course
    sending: Sending


@dataclass(frozen=True)
class Requested:
    """What became of a request.

    Attributes:
        job: its id.
        artifact: the filter in use from now on.
        taken: whether it is the new one, and why.
        sent_rows: samples that the cloud was sent.
        sent_bytes: bytes of them.
        kept_rows: samples that never left.
    """

    job: str
    artifact: FilterArtifact
    taken: Updated
    sent_rows: int
    sent_bytes: int
    kept_rows: int


OnJob = Callable[[JobRecord], None]
OnBytes = Callable[[int], None]


@dataclass(frozen=True)
class _Order:
    """What goes to the cloud.

    Attributes:
        job: id of the request.
        folder: of the request under way.
        design: of the network that is trained.
        stage: what inputs go through first.
        manifest: of the data set, signed.
    """

    job: str
    folder: Path
    design: Design
    stage: FirstStage | None
    manifest: SignedDocument


def wanted_filter(
    inputs: Any,
    results: Results,
    measures: Measures | None = None,
    *,
    recipe: Recipe,
    course: Course,
    modality: Modality | Mapping[str, Modality] | None = None,
    blocks: Any | None = None,
    sending: Sending,
) -> Wanted:
    """A request, with its data checked; arguments are those of `Filter.fit`.

    Raises:
        DatasetError: data that nothing can be learnt from; names the row.
        SettingsError: a setting that cannot be.
    """
    by_task, by_name = tasks_of(results, measures, recipe)
    gathered = gather(inputs)
    labels = labels_of(by_task, by_name, recipe.kind)
    modalities = modalities_of(modality, list(gathered.columns))
    specs = specifications(gathered, modalities)
    design = Design(recipe.kind, specs, len(by_name), **recipe.sizes)
    numbers = None if blocks is None else blocks_of(blocks)
    samples = check_samples(Samples(gathered, labels, numbers), design)
    return Wanted(samples, design, by_name, recipe, course, sending)


def request_filter(
    home: Home,
    wanted: Wanted,
    target: Path,
    *,
    now: datetime,
    on_job: OnJob = lambda _: None,
    on_bytes: OnBytes = lambda _: None,
    sleep: Callable[[float], None] = time.sleep,
    patience_s: float = _PATIENCE_S,
) -> Requested:
    """Has the cloud train a filter, and waits for it; the same request again goes on.

    Args:
        home: of an enrolled device.
        wanted: what is asked for.
        target: folder of the filter; one that is there is replaced unless it is better.
        now: when the data set is signed.
        on_job: told how far the training is.
        on_bytes: told how many more bytes the cloud holds.
        sleep: waits between attempts.
        patience_s: how long the cloud may be out of reach at a stretch.

    Raises:
        DatasetError: data that nothing can be learnt from, here or says the cloud.
        TransportError: the cloud was out of reach for too long; the same request goes on.
        ArtifactError: the result must not be used.
        StateError: this device does not know the cloud's job key.
        TooLargeError, LimitError: more than the cloud takes, or now.
    """
    access = home.access()
    if access.job_key is None:
        raise StateError(
            "this device enrolled before the cloud trained filters, so it knows no key that "
            "their signatures are checked with: run 'triparty device enroll --again'"
        )
    current = FilterArtifact.open(target) if target.exists() else None
    learned, kept = parted(wanted.samples, wanted.recipe.calibration_share, wanted.course.seed)
    order, sent_rows = _ordered(home, wanted, learned, developer=access.developer, now=now)
    with access.client() as client:
        waiting = _Waiting(client, order, wanted, sleep, patience_s)
        try:
            record = waiting.ended(on_job, on_bytes)
        except (TransportError, UnavailableError):
            raise
        except TripartyError:  # refused, or gone: nothing to go on with
            shutil.rmtree(order.folder, ignore_errors=True)
            raise
        if record.state != "done" or record.result is None:
            _leave(client, order)
            if record.state == "cancelled":
                raise CloudError("the job was cancelled: ask again for another one")
            raise DatasetError(f"the cloud could not train: {record.problem or 'no reason'}")
        manifest = verify_result(
            record.result,
            key=PublicKey.from_text(access.job_key),
            job=order.job,
            developer=access.developer,
            limit_bytes=LIMIT_BYTES,
            now=now,
        )
        candidate = _fetched(client, order, wanted, manifest)
        done, artifact = _judged(current, candidate, kept)
        if done.is_taken:
            artifact.save(target)
        _leave(client, order)
    size = Manifest.from_bytes(order.manifest.payload).size
    return Requested(order.job, artifact, done, sent_rows, size, len(kept))


def jobs_under_way(home: Home) -> list[str]:
    """Ids of this device's requests that have not come to an end."""
    return sorted(path.parent.name for path in home.folder.glob(f"jobs/*/{_REQUEST_FILE}"))


def cancel(home: Home, job: str) -> None:
    """Ends a job at once, and removes all of it here and on the cloud."""
    with home.access().client() as client:
        client.end_job(check_job_id(job))
    shutil.rmtree(home.folder / "jobs" / job, ignore_errors=True)


def _ordered(
    home: Home, wanted: Wanted, learned: Samples, *, developer: str, now: datetime
) -> tuple[_Order, int]:
    """What goes to the cloud, written down before anything is sent; the number of samples."""
    for folder in sorted(path.parent for path in home.folder.glob(f"jobs/*/{_REQUEST_FILE}")):
        fingerprint = json.loads((folder / _REQUEST_FILE).read_bytes())["fingerprint"]
        if fingerprint == _fingerprint(wanted, learned):
            return _taken_up(folder, wanted, learned), len(learned)
    job = new_job_id()
    folder = home.folder / "jobs" / job
    make_private_folder(folder.parent)
    make_private_folder(folder)
    stage = None
    if wanted.sending == "features":
        stage = FirstStage.drawn(wanted.design.inputs, learned.inputs)
        stage.save(folder)
    design = _design(wanted, stage)
    data = _write_data(folder, design, stage, learned)
    manifest = Manifest(
        kind=Kind.DATASET,
        name=job,
        version=1,
        epoch=0,
        developer=developer,
        signer=home.identity_key().public.key_id,
        files=describe_folder(data, kind=Kind.DATASET),
        created=now,
        expires=now + _LIFE,
    )
    signed = sign_dataset(manifest, home.identity_key())
    write_artifact(signed, folder)
    remembered = {"fingerprint": _fingerprint(wanted, learned)}
    write_private(folder / _REQUEST_FILE, json.dumps(remembered).encode())
    return _Order(job, folder, design, stage, signed), len(learned)


def _taken_up(folder: Path, wanted: Wanted, learned: Samples) -> _Order:
    """A request that was left: the same stage, the same bytes, the same signature."""
    stage = FirstStage.open(folder)
    design = _design(wanted, stage)
    _write_data(folder, design, stage, learned)
    return _Order(folder.name, folder, design, stage, read_signed(folder))


def _design(wanted: Wanted, stage: FirstStage | None) -> Design:
    return (
        wanted.design if stage is None else replace(wanted.design, inputs=stage.feature_specs)
    )


def _write_data(
    folder: Path, design: Design, stage: FirstStage | None, learned: Samples
) -> Path:
    """Writes the data set, and checks it as the cloud will, before anything is sent."""
    data = folder / "data"
    make_private_folder(data)
    inputs = learned.inputs if stage is None else stage.features(learned.inputs)
    write_dataset(data / DATASET_FILE, Samples(inputs, learned.labels))
    try:
        check_dataset(data / DATASET_FILE, design, _LIMITS)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return data


def _fingerprint(wanted: Wanted, learned: Samples) -> str:
    """Equal for the same data and the same wishes."""
    digest = hashlib.sha256()
    told = [
        repr(wanted.design),
        asdict(wanted.course),
        wanted.sending,
        [(name, one.name, one.parameters) for name, one in wanted.measures.items()],
    ]
    digest.update(json.dumps(told, sort_keys=True).encode())
    for name, column in sorted(learned.inputs.columns.items()):
        digest.update(name.encode() + column.tobytes())
    digest.update(learned.inputs.present.tobytes() + learned.labels.tobytes())
    return digest.hexdigest()


@dataclass
class _Waiting:
    """A job that this device waits for, through cuts and restarts of the cloud."""

    client: CloudClient
    order: _Order
    wanted: Wanted
    sleep: Callable[[float], None]
    patience_s: float

    def ended(self, on_job: OnJob, on_bytes: OnBytes) -> JobRecord:
        """The job once it ended.

        Raises:
            TransportError: out of reach for too long.
        """
        record = self._patiently(lambda: self._asked(on_bytes))
        shutil.rmtree(self.order.folder / "data", ignore_errors=True)
        on_job(record)
        while not record.has_ended:
            record = self._patiently(lambda: self._watched(on_job))
        return record

    def _asked(self, on_bytes: OnBytes) -> JobRecord:
        """Uploads and asks; what is there already is not sent again."""
        try:
            return self.client.job(self.order.job)
        except NotFoundError:
            pass
        file = Manifest.from_bytes(self.order.manifest.payload).files[0]
        path = self.order.folder / "data" / DATASET_FILE
        left = _UPLOADS
        while True:
            self.client.upload_blob(path, sha256=file.sha256, size=file.size, on_bytes=on_bytes)
            left -= 1
            try:
                return self.client.request_job(self._body())
            except BlobMissingError:  # it was removed between the two
                if not left:
                    raise

    def _watched(self, on_job: OnJob) -> JobRecord:
        """The job when its stream ended, for whatever reason."""
        for record in self.client.watch_job(self.order.job):
            on_job(record)
            if record.has_ended:
                return record
        return self.client.job(self.order.job)

    def _patiently(self, attempt: Callable[[], JobRecord]) -> JobRecord:
        """Tries again while the cloud is out of reach, or drains."""
        pause_s, waited_s = _FIRST_PAUSE_S, 0.0
        while True:
            try:
                return attempt()
            except (TransportError, UnavailableError) as error:
                if waited_s >= self.patience_s or isinstance(error, CertificateError):
                    raise type(error)(
                        f"{error.message}; the same command again goes on waiting",
                        **error.extra,
                    ) from error
            self.sleep(pause_s)
            waited_s += pause_s
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    def _body(self) -> dict[str, Any]:
        design = asdict(self.order.design)
        course = asdict(self.wanted.course)
        return {
            "job": self.order.job,
            "manifest": to_base64url(self.order.manifest.payload),
            "signature": to_base64url(self.order.manifest.signature),
            "kind": design.pop("kind"),
            "design": {
                **design,
                "inputs": [{**one, "shape": list(one["shape"])} for one in design["inputs"]],
            },
            "course": {k: v for k, v in course.items() if k != "accelerated"},
        }


def _fetched(
    client: CloudClient, order: _Order, wanted: Wanted, manifest: Manifest
) -> FilterArtifact:
    """The filter of a verified manifest, if it is the network that was asked for.

    Raises:
        ArtifactError: its files are not the manifest's, or it is something else.
    """
    making = order.folder / "result"
    make_private_folder(making)
    for file in manifest.files:
        client.download_blob(making / file.path, sha256=file.sha256, size=file.size)
    verify_folder(manifest, making)
    found = FilterArtifact.open(making)
    if found.design != order.design:
        raise ManifestError("the cloud trained another network than it was asked for")
    Session(found.network, found.design)
    unknown = Calibration(
        None, wanted.recipe.target_accuracy, wanted.recipe.confidence, 0.0, 1.0, 0
    )
    tasks = tuple(
        FilterTask(name, measure, unknown) for name, measure in wanted.measures.items()
    )
    return FilterArtifact(
        found.design, found.network, tasks, wanted.recipe.reuse, found.training, order.stage
    )


def _judged(
    current: FilterArtifact | None, candidate: FilterArtifact, kept: Samples
) -> tuple[Updated, FilterArtifact]:
    if current is not None:
        return adopted(current, candidate, kept)
    made = calibrated_on(candidate, kept)
    rate = made.tasks[0].calibration.filter_rate
    return Updated(True, 0.0, rate, "there was no filter before"), made


def _leave(client: CloudClient, order: _Order) -> None:
    """Removes what is left of a request, on the cloud and here."""
    with contextlib.suppress(TransportError, UnavailableError):  # it goes by itself later
        client.end_job(order.job)
    shutil.rmtree(order.folder, ignore_errors=True)
