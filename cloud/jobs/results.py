"""What a training becomes: a filter without thresholds, signed by the cloud's job key.

A device keeps samples back that it never sends, judges the filter on them and sets its
thresholds itself. So the cloud knows neither what the tasks are called, nor what makes a result
redundant, nor how much is to be filtered, and no number of its own is believed.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from triparty.common.artifacts import Manifest, describe_folder
from triparty.common.entries import Kind
from triparty.common.errors import StateError
from triparty.common.filters import filter_document, unjudged_task
from triparty.common.jobs import sign_result
from triparty.common.signing import PrivateKey
from triparty.common.trust import SignedDocument

if TYPE_CHECKING:
    from triparty.common.nets.training import Trained

KEY_FILE = "job.key"
LIFE = timedelta(days=30)


def job_key(data: Path) -> PrivateKey:
    """The job key of a cloud's folder; made if it has none yet.

    Devices pin its public half at enrolment. It signs results of trainings and nothing else.

    Raises:
        StateError: it is damaged, or others can read it.
    """
    path = data / KEY_FILE
    if not path.exists():
        try:
            PrivateKey.generate().save(path)
        except StateError:
            if not path.exists():  # else another one made it at this moment
                raise
    return PrivateKey.load(path)


def unjudged_filter(trained: Trained, *, seed: int) -> bytes:
    """The `filter.json` of a network that nobody judged yet."""
    design = trained.network.design
    return filter_document(
        design,
        tasks=[unjudged_task(f"task-{number}", design.kind) for number in range(design.tasks)],
        training={
            "samples": trained.samples,
            "epochs": trained.epochs,
            "seed": seed,
            "loss": repr(float(trained.loss)),
        },
    )


def signed_result(
    folder: Path, *, job: str, developer: str, key: PrivateKey, now: datetime
) -> SignedDocument:
    """The signed manifest of a job's filter.

    Args:
        folder: of the filter's files.
        job: its id, the name in the manifest.
        developer: of the device that asked.
        key: of this cloud.
        now: when it is signed.
    """
    manifest = Manifest(
        kind=Kind.FILTER,
        name=job,
        version=1,
        epoch=0,
        developer=developer,
        signer=key.public.key_id,
        files=describe_folder(folder, kind=Kind.FILTER),
        created=now,
        expires=now + LIFE,
    )
    return sign_result(manifest, key)
