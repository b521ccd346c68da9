"""The cloud's routes as Python calls: what developer and device share.

One method a route of `docs/http.md`. What comes back is checked for its form and for nothing
else: whether to believe a signed document is the business of `trust` and `artifacts`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, Self
from urllib.parse import quote

from triparty.common import replies
from triparty.common.artifacts import Kind
from triparty.common.blob_transfer import OnBytes, download_blob, upload_blob
from triparty.common.connection import Answer, Connection
from triparty.common.documents import check_name
from triparty.common.errors import CloudError, FrameError, TooLargeError
from triparty.common.events import events
from triparty.common.replies import (
    DeviceRecord,
    Enrolled,
    ForwardReply,
    JobRecord,
    SessionRecord,
    Statements,
    StepReply,
)
from triparty.common.signing import to_base64url
from triparty.common.trust import SignedDocument
from triparty.common.wire import MEDIA_TYPE, Frame, decode_frames, encode_frames

REPLY_LIMIT_BYTES = 64 << 20
_EVENT_LIMIT_BYTES = 1 << 20
_HEADERS_BYTES = 1 << 10  # more than the headers of the frames of one reply


def _silent(_: int) -> None:
    """The progress of a transfer that nobody watches."""


class CloudClient:
    """One principal's calls to one cloud.

    Every method raises the typed error of the cloud's problem document, `TransportError` when
    the cloud is not reached, and `CloudError` for an answer that makes no sense.
    """

    def __init__(self, connection: Connection) -> None:
        """Speaks over a connection, which it owns."""
        self.connection = connection

    def __repr__(self) -> str:
        """Names the cloud, never the token."""
        return f"{type(self).__name__}({self.connection.url!r})"

    def __enter__(self) -> Self:
        """The client itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Closes the connection."""
        self.connection.close()

    # Accounts

    def enroll(self, body: Mapping[str, Any]) -> Enrolled:
        """Uses an invite up; the body is that of `POST /v1/enroll`.

        If the answer is lost on its way, the same is sent again: the cloud answers it.
        """
        answer = self.connection.request(
            "POST", "/v1/enroll", body=body, accept=(201,), repeatable=True
        )
        return Enrolled.of(answer.document())

    def create_invite(
        self,
        *,
        role: Literal["developer", "device"],
        login_hash: str,
        expires_in_s: int,
        label: str,
    ) -> str:
        """Registers an invite by the hash of its login half; returns when it expires."""
        body = {
            "role": role,
            "login_hash": login_hash,
            "expires_in_s": expires_in_s,
            "label": label,
        }
        answer = self.connection.request("POST", "/v1/invites", body=body, accept=(201,))
        return replies.time(answer.document(), "expires")

    def devices(self) -> tuple[DeviceRecord, ...]:
        """All devices of the developer, as the cloud claims them to be."""
        document = self.connection.request("GET", "/v1/devices").document()
        listed = replies.records(document, "devices")
        return tuple(DeviceRecord.of(item) for item in listed)

    def revoke_device(self, device: str) -> None:
        """Takes a device's access back; its sessions end at once."""
        path = f"/v1/devices/{quote(device, safe='')}"
        self.connection.request("DELETE", path, accept=(200, 204))

    def rotate_token(self) -> tuple[str, str]:
        """A new token and when it expires; the one in use stops at once."""
        answer = self.connection.request("POST", "/v1/tokens/rotate", accept=(200, 201))
        document = answer.document()
        return replies.text(document, "token"), replies.time(document, "expires")

    # Artifacts

    def upload_blob(
        self, file: Path, *, sha256: str, size: int, on_bytes: OnBytes = _silent
    ) -> None:
        """Sends a file unless the cloud has it; see `blob_transfer.upload_blob`."""
        upload_blob(self.connection, file, sha256=sha256, size=size, on_bytes=on_bytes)

    def download_blob(
        self, target: Path, *, sha256: str, size: int, on_bytes: OnBytes = _silent
    ) -> None:
        """Fetches a file; see `blob_transfer.download_blob`."""
        download_blob(self.connection, target, sha256=sha256, size=size, on_bytes=on_bytes)

    def publish_artifact(self, signed: SignedDocument) -> str:
        """Makes an artifact visible whose blobs are all uploaded; returns its id."""
        body = {
            "manifest": to_base64url(signed.payload),
            "signature": to_base64url(signed.signature),
        }
        # The same manifest a second time changes nothing.
        answer = self.connection.request(
            "POST", "/v1/artifacts", body=body, accept=(200, 201), repeatable=True
        )
        return replies.text(answer.document(), "artifact")

    def artifacts(
        self, *, kind: Kind | None = None, name: str | None = None
    ) -> tuple[SignedDocument, ...]:
        """The manifests that this principal may see, newest version first, unverified."""
        wanted = {"kind": kind.value if kind else None, "name": name}
        params = {key: value for key, value in wanted.items() if value is not None}
        document = self.connection.request("GET", "/v1/artifacts", params=params).document()
        listed = replies.records(document, "artifacts")
        return tuple(replies.signed(item, "manifest", "signature") for item in listed)

    def statements(self) -> Statements:
        """The developer's delegation and latest statement, unverified."""
        return Statements.of(self.connection.request("GET", "/v1/latest").document())

    def put_statements(
        self, delegation: SignedDocument, latest: SignedDocument, *, drain_s: int = 0
    ) -> None:
        """Replaces the developer's delegation and latest statement.

        Args:
            delegation: signed by the root key.
            latest: signed by a publishing key.
            drain_s: seconds for which open sessions of what `latest` newly revokes go on.
        """
        body: dict[str, Any] = {
            "delegation": to_base64url(delegation.payload),
            "delegation_signature": to_base64url(delegation.signature),
            "latest": to_base64url(latest.payload),
            "latest_signature": to_base64url(latest.signature),
            **({"drain_s": drain_s} if drain_s else {}),
        }
        self.connection.request("PUT", "/v1/latest", body=body, accept=(200, 201, 204))

    # Sessions

    def open_session(
        self, model: str, *, version: int | None = None, request_id: str | None = None
    ) -> SessionRecord:
        """A new session on a model's current version, or on that of a bundle.

        Args:
            model: its name.
            version: of the bundle; None: of the newest.
            request_id: names the request; sent again, it returns the same session. None opens
                another each time, of which those without our knowing end by idle timeout.

        Raises:
            SpentError: a version for one session, which it had.
            RetiredError: the version is no longer used.
        """
        path = f"/v1/models/{check_name(model, what='model')}/sessions"
        headers = {} if version is None else {"Triparty-Version": str(version)}
        headers |= {} if request_id is None else {"Triparty-Request-Id": request_id}
        answer = self.connection.request(
            "POST", path, body={}, headers=headers, accept=(201,), repeatable=True
        )
        return SessionRecord.of(answer.document())

    def step(
        self,
        session: str,
        rows: Frame,
        *,
        position: int,
        request_id: str,
        reply: str,
        reply_rows: int = 1,
        rollback_of: str | None = None,
    ) -> StepReply:
        """Appends rows to a session.

        Args:
            session: its id.
            rows: (T, D), keyed.
            position: of the first row.
            request_id: names the step; sent again, it returns the stored reply.
            reply: `hidden`, `logits`, `topk=K` or `id`, about the last rows.
            reply_rows: how many of them.
            rollback_of: request id of the last step, if this one begins before its end: the
                rows from `position` on are taken back first.

        Returns:
            The frames of the reply and the new position.

        Raises:
            NotFoundError: the session ended; open another and replay.
            PositionError: the session stands elsewhere.
        """
        answer = self.connection.request(
            "POST",
            f"{_session_path(session)}/step",
            content=encode_frames(rows),
            headers={
                "Content-Type": MEDIA_TYPE,
                "Triparty-Position": str(position),
                "Triparty-Request-Id": request_id,
                "Triparty-Reply": reply,
            }
            | ({"Triparty-Reply-Rows": str(reply_rows)} if reply_rows > 1 else {})
            | ({"Triparty-Rollback-Of": rollback_of} if rollback_of else {}),
            repeatable=True,
            limit_bytes=REPLY_LIMIT_BYTES + _HEADERS_BYTES,
        )
        frames = _frames(answer)
        stands = answer.headers.get("Triparty-Position", "")
        expected = position + rows.array.shape[0]
        if stands != str(expected):
            raise CloudError(f"expected the session at position {expected} after the step")
        return StepReply(tuple(frames), expected)

    def read_source(self, session: str, rows: Frame) -> None:
        """Has the model's encoder read the text that a session answers.

        Args:
            session: its id; at position 0.
            rows: (S, D), keyed.

        Raises:
            NotFoundError: the session ended; open another.
            PositionError: the session has rows of an answer.
            TooLargeError: more rows than the cloud reads at once.
        """
        answer = self.connection.request(
            "POST",
            f"{_session_path(session)}/source",
            content=encode_frames(rows),
            headers={"Content-Type": MEDIA_TYPE},
            repeatable=True,
        )
        if answer.document().get("rows") != len(rows.array):
            raise CloudError(f"expected the cloud to have read {len(rows.array)} rows")

    def rollback_session(self, session: str, *, position: int) -> None:
        """Takes back the rows from a position on."""
        path = f"{_session_path(session)}/rollback"
        self.connection.request("POST", path, body={"position": position}, repeatable=True)

    def fork_session(self, session: str) -> SessionRecord:
        """A second session with the same rows."""
        path = f"{_session_path(session)}/fork"
        return SessionRecord.of(self.connection.request("POST", path, accept=(201,)).document())

    def close_session(self, session: str) -> None:
        """Frees a session; nothing if it ended already."""
        self.connection.request("DELETE", _session_path(session), accept=(200, 204, 404))

    def forward(
        self,
        model: str,
        inputs: Mapping[str, Frame],
        *,
        session: str | None = None,
        request_id: str | None = None,
    ) -> ForwardReply:
        """Has an encoder answer about whole texts or images.

        Args:
            model: its name.
            inputs: frames by the names of `Triparty-Inputs`, in order; keyed.
            session: the one that has the one-time instance, for its one request.
            request_id: names the request in a session; sent again, it is answered again.

        Raises:
            NotFoundError: no such model for this principal, or the session ended.
            SpentError: the session had its one request.
            RequestError: inputs that the model does not take, or a decoder.
            TooLargeError: more than the cloud takes at once.
        """
        within = {"Triparty-Session": session, "Triparty-Request-Id": request_id}
        answer = self.connection.request(
            "POST",
            f"/v1/models/{check_name(model, what='model')}/forward",
            content=encode_frames(*inputs.values()),
            headers={"Content-Type": MEDIA_TYPE, "Triparty-Inputs": ",".join(inputs)}
            | {name: value for name, value in within.items() if value is not None},
            repeatable=True,
            limit_bytes=REPLY_LIMIT_BYTES + _HEADERS_BYTES,
        )
        frames = _frames(answer)
        names = ("Triparty-Version", "Triparty-Epoch")
        version, epoch = (answer.headers.get(name, "") for name in names)
        if len(frames) != 1 or not all(n.isascii() and n.isdigit() for n in (version, epoch)):
            raise CloudError("the cloud's answer is not one frame of a version and an epoch")
        return ForwardReply(frames[0], int(version), int(epoch))

    # Training jobs

    def request_job(self, body: Mapping[str, Any]) -> JobRecord:
        """Asks for a training; the body is that of `POST /v1/jobs`.

        The same body again is the same job.
        """
        answer = self.connection.request(
            "POST", "/v1/jobs", body=body, accept=(200, 201), repeatable=True
        )
        return JobRecord.of(answer.document())

    def jobs(self) -> tuple[JobRecord, ...]:
        """This device's jobs, newest first."""
        document = self.connection.request("GET", "/v1/jobs").document()
        return tuple(JobRecord.of(item) for item in replies.records(document, "jobs"))

    def job(self, job: str) -> JobRecord:
        """One of this device's jobs.

        Raises:
            NotFoundError: no such job, or not any more.
        """
        return JobRecord.of(self.connection.request("GET", f"/v1/jobs/{job}").document())

    def watch_job(self, job: str) -> Iterator[JobRecord]:
        """A job whenever it changed; ends when the job does, or when the cloud drains.

        Raises:
            NotFoundError: no such job, or not any more.
            TransportError: the stream was cut: watch again.
        """
        path = f"/v1/jobs/{job}/events"
        with self.connection.stream(path, accept=(200,)) as (_, chunks):
            for data in events(chunks, limit_bytes=_EVENT_LIMIT_BYTES):
                yield JobRecord.of(_object(data))

    def end_job(self, job: str) -> None:
        """Ends a job and removes all of it; nothing if it is gone already."""
        self.connection.request("DELETE", f"/v1/jobs/{job}", accept=(200, 204, 404))


def _object(data: str) -> Mapping[str, Any]:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise CloudError("an event of the cloud is not JSON") from error
    if not isinstance(value, dict):
        raise CloudError("an event of the cloud is not a JSON object")
    return value


def _frames(answer: Answer) -> list[Frame]:
    try:
        return decode_frames(answer.body, limit_bytes=REPLY_LIMIT_BYTES)
    except (FrameError, TooLargeError) as error:
        raise CloudError(f"the cloud's reply is no frame: {error.message}") from error


def _session_path(session: str) -> str:
    return f"/v1/sessions/{quote(session, safe='')}"
