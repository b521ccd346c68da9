"""Training jobs as a device asks for them, through a cloud's ASGI interface."""

from __future__ import annotations

import json
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from made_inputs import SIZES, clouds

from triparty.common.artifacts import FileEntry, Kind, Manifest
from triparty.common.datasets import DATASET_FILE, write_dataset
from triparty.common.jobs import new_job_id, sign_dataset
from triparty.common.nets.samples import Samples, gather
from triparty.common.signing import to_base64url

LIMIT_S = 60
COURSE = {"epochs": 3, "batch": 16, "rate": 5e-3}
ENDED = ("done", "failed")


def samples(kind: str = "skip", count: int = 200, seed: int = 0) -> Samples:
    points, classes = clouds(count, seed=seed)
    labels = (classes == 0).astype(np.int64) if kind == "skip" else classes
    return Samples(gather(points), labels[:, None])


def data_of(folder: Path, made: Samples) -> bytes:
    write_dataset(folder / "made.npz", made)
    return (folder / "made.npz").read_bytes()


def design(width: int = 6, **changes: Any) -> dict[str, Any]:
    one = {"name": "input", "modality": "vector", "shape": [width]}
    return {"inputs": [one], **SIZES, **changes}


def body_of(device: Any, data: bytes, **changes: Any) -> dict[str, Any]:
    """The body of `POST /v1/jobs`, signed."""
    from hashlib import sha256

    job = changes.pop("job", None) or new_job_id()
    manifest = Manifest(
        **{
            "kind": Kind.DATASET,
            "name": job,
            "version": 1,
            "epoch": 0,
            "developer": device.developer.id,
            "signer": device.id,
            "files": (FileEntry(DATASET_FILE, sha256(data).hexdigest(), len(data)),),
            "created": device.cloud.now,
            "expires": device.cloud.now + timedelta(days=1),
        }
        | changes.pop("manifest", {})
    )
    signed = sign_dataset(manifest, device.identity)
    return {
        "job": job,
        "manifest": to_base64url(signed.payload),
        "signature": to_base64url(signed.signature),
        "kind": "skip",
        "design": design(),
        "course": COURSE,
    } | changes


def put(device: Any, data: bytes) -> httpx.Response:
    from hashlib import sha256

    return device.request("PUT", f"/v1/blobs/{sha256(data).hexdigest()}", content=data)


def post(device: Any, data: bytes, **changes: Any) -> httpx.Response:
    """Uploads and asks."""
    assert put(device, data).status_code == 201
    return device.request("POST", "/v1/jobs", json=body_of(device, data, **changes))


def get(device: Any, job: str) -> dict[str, Any]:
    answer = device.request("GET", f"/v1/jobs/{job}")
    assert answer.status_code == 200, answer.text
    return answer.json()


def waited(device: Any, job: str, *states: str) -> dict[str, Any]:
    """The job once it is in one of these states, by default once it ended."""
    end_s = time.monotonic() + LIMIT_S
    while (found := get(device, job))["state"] not in (states or ENDED):
        assert time.monotonic() < end_s, found
        time.sleep(0.05)
    return found


def events_of(text: str) -> list[dict[str, Any]]:
    return [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: ")]


def files_of(folder: Path) -> list[str]:
    """Everything of jobs that a cloud keeps."""
    jobs = folder / "jobs"
    return sorted(str(path.relative_to(jobs)) for path in jobs.rglob("*") if path.is_file())
