"""One conversation with a model on the cloud, which survives what happens to the cloud.

The device keeps the token ids that it sent. If the cloud lost the session (eviction,
restart), it opens another and replays them; the answer goes on as if nothing had happened.
If the connection broke in the middle of a step, it repeats the step under the same request
id, and the cloud runs it once. If the key epoch ended, it goes on under the next key.

Tokens may be taken back. The cloud learns of it with the next step, which begins inside the one
before and names it.

Shapes: `T` tokens, `D` width, `V` vocabulary.
"""

from __future__ import annotations

import random
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from triparty.common.deadline import Deadline
from triparty.common.errors import (
    CloudError,
    NotFoundError,
    PositionError,
    RequestError,
    RetiredError,
    RollbackError,
    SpentError,
    TripartyError,
    UnreachableError,
)
from triparty.common.keying import Bundle, KeyedReply, PlainLogits
from triparty.common.replies import SessionRecord, StepReply
from triparty.common.shielding import Shield, request_sizes
from triparty.common.wire import Frame
from triparty.device.inference.attestation import Attestation
from triparty.device.inference.kept import Kept
from triparty.device.inference.pictures import Picture

_T = TypeVar("_T")

SESSIONS = 3
PAUSES_S = (0.5, 1.0, 2.0, 4.0, 8.0)  # a cloud that restarts is back within them
CLOSING_S = 2.0


class Steps(Protocol):
    """The session routes of a cloud, as a conversation uses them; `CloudClient` has them."""

    def open_session(self, model: str, *, version: int | None = None) -> SessionRecord:
        """Opens a session of a model, on the version of a bundle if it is named."""

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
        """Sends keyed rows (T, D); returns the reply about the last ones."""

    def read_source(self, session: str, rows: Frame) -> None:
        """Has the model's encoder read the keyed rows (S, D) of the text that is answered."""

    def rollback_session(self, session: str, *, position: int) -> None:
        """Takes back the rows from a position on."""

    def close_session(self, session: str) -> None:
        """Ends a session; one that is gone already is no error."""


class Renewed(Protocol):
    """What a conversation goes on with; `keyring.Key` is one."""

    @property
    def bundle(self) -> Bundle:
        """Opened."""

    @property
    def version(self) -> int:
        """Of the bundle."""

    @property
    def once(self) -> bool:
        """Whether it is for one session."""

    @property
    def begin(self) -> Callable[[], None]:
        """Called when a session is open."""


@dataclass(frozen=True)
class LastStep:
    """What the session's last step was.

    Attributes:
        request_id: its name.
        end: rows that the session had after it.
    """

    request_id: str
    end: int


class Conversation:
    """A session of one model, from the device's side.

    Args:
        steps: the way to the cloud.
        bundle: opened bundle of the model.
        model: its name on the cloud.
        version: of the bundle, which is that of the model it belongs to.
        once: whether the bundle is for one session.
        begin: called when a session is open, before anything is sent on it.
        renew: gets another bundle, when the version of this one was taken out of use; None:
            that is an error.
        shield: what becomes of the rows before they go; None sends them as they are.
        block: rows that requests and the whole session are multiples of, as far as they can
            be (`request_sizes`); 1 shows every length as it is.
        attestation: what has to be proven before each session; None asks for no proof.
        deadline: how long it may go on, and how to wait between attempts; None sets no end.
        picture: the image in its text, if there is one.
        source: ids (S,) of the text that a model with an encoder answers; None without one.
        kept: what the turn before left, and where this one leaves it; None ends the session
            with the conversation.
    """

    def __init__(
        self,
        steps: Steps,
        bundle: Bundle,
        model: str,
        *,
        version: int,
        once: bool = False,
        begin: Callable[[], None] = lambda: None,
        renew: Callable[[], Renewed] | None = None,
        shield: Shield | None = None,
        block: int = 1,
        attestation: Attestation | None = None,
        deadline: Deadline | None = None,
        picture: Picture | None = None,
        source: Sequence[int] | None = None,
        kept: Kept | None = None,
    ) -> None:
        """Sends nothing yet."""
        self._steps, self._bundle, self._model = steps, bundle, model
        self._version, self._deadline = version, deadline or Deadline()
        self._once, self._begin, self._renew = once, begin, renew
        self._shield, self._block = shield or Shield(), block
        self._attestation, self._picture, self._source = attestation, picture, source
        self._session: SessionRecord | None = None
        self._last: LastStep | None = None
        self._sent: list[int] = []
        self._kept = kept
        if kept is not None:
            self._take_up(kept)

    def __enter__(self) -> Self:
        """The conversation."""
        return self

    def __exit__(self, *_: object) -> None:
        """Frees the session on the cloud, if it can be reached, or keeps it."""
        if self._kept is None:
            self._close()
            return
        self._kept.session, self._kept.last = self._session, self._last
        self._kept.sent = self._sent

    def _take_up(self, kept: Kept) -> None:
        """Goes on where the turn before ended, if its rows were of the same key."""
        kept.shield = self._shield = kept.shield or self._shield
        self._session, self._last, self._sent = kept.session, kept.last, kept.sent
        key = (self._version, self._bundle.info.epoch)
        if kept.key not in (None, key):
            self._begin_anew()
        kept.key = key

    def _begin_anew(self) -> None:
        self._close()
        self._session, self._last, self._sent = None, None, []

    def _close(self) -> None:
        if self._session is not None:
            self._deadline.grace(CLOSING_S)
            try:
                self._steps.close_session(self._session.id)
            except TripartyError:
                return  # the cloud frees an idle session by itself

    def rest_of(self, ids: Sequence[int]) -> list[int]:
        """What of a text the cloud does not have yet; at least one token.

        What was sent and is not in the text is taken back. In blocks, where that would show
        where the text is another one, the conversation begins anew.
        """
        pairs = enumerate(zip(self._sent, ids[:-1], strict=False))
        common = next((at for at, (a, b) in pairs if a != b), min(self.position, len(ids) - 1))
        if common < self.position:
            if self._block > 1 or not common:
                self._begin_anew()
            else:
                self._roll_back(common)
        return list(ids[self.position :])

    def _roll_back(self, position: int) -> None:
        """Has the cloud forget rows; if it has forgotten all, they are replayed."""
        if self._session is not None:
            try:
                self._steps.rollback_session(self._session.id, position=position)
            except (NotFoundError, PositionError):
                self._session = None
        self._sent, self._last = self._sent[:position], None

    @property
    def position(self) -> int:
        """How many tokens the cloud has seen."""
        return len(self._sent)

    @property
    def room(self) -> int:
        """How many tokens fit in the next step beside one, with a reply about each of them.

        None before the first step: how much the cloud takes is known with the session.
        """
        session = self._session
        if session is None:
            return 0
        left = session.positions - self.position
        return min(session.reply_rows, session.rows_per_step, left) - 1

    @property
    def missing(self) -> int:
        """How many more tokens make the session a multiple of the block, where they fit."""
        wanted = -self.position % self._block
        return wanted if self.position + wanted <= self._bundle.info.max_positions else 0

    def logits_after(self, ids: Sequence[int]) -> PlainLogits:
        """Sends tokens; the logits (V,) of what follows them. See `logits_of_last`."""
        return PlainLogits(self.logits_of_last(ids, 1)[0])

    def logits_of_last(self, ids: Sequence[int], count: int) -> PlainLogits:
        """Sends tokens; the logits (N, V) of what follows each of the last N.

        Args:
            ids: at least one token id; they continue what was sent before.
            count: N, from 1 to the number of ids.

        Raises:
            RequestError: no tokens, or more than the model has positions.
            RollbackError: the cloud hosts another version or epoch than the bundle's.
            RetiredError: the bundle's was taken out of use.
            SpentError: a bundle for one session was used.
            UnreachableError: the cloud stayed away.
            AttestationError: no proof that the cloud runs what it should; nothing was sent.
        """
        if not ids:
            raise RequestError("expected at least one token to send; give a prompt")
        lost = renewed = 0
        while True:
            try:
                return self._sent_after(ids, count)
            except (NotFoundError, PositionError):
                lost += 1
                if self._session is None or lost == SESSIONS:
                    raise  # no such model for this device
                self._session = None  # gone, or not ours to continue: another one
            except (RetiredError, RollbackError, SpentError):
                renewed += 1
                if self._renew is None or renewed == SESSIONS:
                    raise
                self._session = None
                self._go_on_under(self._renew())

    def _go_on_under(self, key: Renewed) -> None:
        """Goes on under another key; what was sent is replayed under it."""
        self._bundle, self._version = key.bundle, key.version
        self._once, self._begin = key.once, key.begin
        if self._kept is not None:
            self._kept.key = (key.version, key.bundle.info.epoch)

    def take_back(self, count: int) -> None:
        """Forgets the last `count` tokens; sends nothing."""
        del self._sent[self.position - count :]

    def _sent_after(self, ids: Sequence[int], count: int) -> PlainLogits:
        logits = self._send(ids, count)
        self._sent.extend(ids)
        return logits

    def _send(self, ids: Sequence[int], count: int) -> PlainLogits:
        if self._session is None:
            self._session, self._last = self._open(), None
            self._have_read(self._session)
            pending, start = [*self._sent, *ids], 0
        else:
            pending, start = list(ids), self.position
        session = self._session
        if start + len(pending) > session.positions:
            raise RequestError(
                f"the conversation would have {start + len(pending)} tokens, the model takes "
                f"{session.positions}: shorten it"
            )
        limit = session.rows_per_step
        if count > session.reply_rows:
            limit = min(limit, session.reply_rows)
        unasked, replies, at = len(pending) - count, [], 0
        for size in request_sizes(start, len(pending), block=self._block, limit=limit):
            wanted = at + size - max(at, unasked)
            frames = self._step(session, pending[at : at + size], start + at, max(1, wanted))
            if wanted > 0:
                replies.append(self._checked(frames, wanted))
            at += size
        return self._read(np.concatenate(replies))

    def _open(self) -> SessionRecord:
        if self._attestation is not None:
            self._attestation.require()
        session = (
            self._steps.open_session(self._model, version=self._version)
            if self._once
            else self._steps.open_session(self._model)
        )
        self._begin()
        hosted, held = (
            (session.version, session.epoch),
            (self._version, self._bundle.info.epoch),
        )
        if hosted != held:
            self._steps.close_session(session.id)
            raise RollbackError(
                f"the cloud hosts version {hosted[0]}, epoch {hosted[1]} of '{self._model}', "
                f"this device's bundle is of version {held[0]}, epoch {held[1]}: "
                f"run 'triparty device pull'"
            )
        return session

    def _have_read(self, session: SessionRecord) -> None:
        """Sends the text that is answered, if the model has an encoder for it."""
        if self._source is None:
            return
        if len(self._source) > session.rows_per_step:
            raise RequestError(
                f"the text has {len(self._source)} tokens, the cloud reads "
                f"{session.rows_per_step} at once: shorten it"
            )
        rows = self._bundle.rows(np.asarray(self._source, np.int64), start=0)
        request = partial(self._steps.read_source, session.id, self._shield.rows(rows, start=0))
        self._repeated(request)

    def _step(
        self, session: SessionRecord, ids: Sequence[int], position: int, reply_rows: int
    ) -> Sequence[Frame]:
        """One request, repeated under one id while the connection breaks."""
        rows = self._bundle.rows(np.asarray(ids, np.int64), start=position)
        if self._picture is not None:
            rows = self._picture.put_into(rows, start=position)
        rows = self._shield.rows(rows, start=position)
        last, request_id = self._last, secrets.token_hex(16)
        request = partial(
            self._steps.step,
            session.id,
            rows,
            position=position,
            request_id=request_id,
            reply=self._bundle.info.reply,
            reply_rows=reply_rows,
            rollback_of=last.request_id if last and position < last.end else None,
        )
        answer = self._repeated(request)
        self._last = LastStep(request_id, position + len(ids))
        return answer.frames

    def _repeated(self, request: Callable[[], _T]) -> _T:
        for pause_s in PAUSES_S:
            try:
                return request()
            except UnreachableError:
                self._deadline.sleep(pause_s * random.uniform(0.5, 1))  # noqa: S311 no secret
        return request()

    def _checked(self, frames: Sequence[Frame], rows: int) -> NDArray[np.float32]:
        """The reply (N, O), if it has this form."""
        info = self._bundle.info
        if len(frames) != 1 or frames[0].array.shape != (rows, info.reply_width):
            shapes = [frame.array.shape for frame in frames]
            raise CloudError(
                f"expected {info.reply} ({rows}, {info.reply_width}) from the cloud, "
                f"got {shapes}"
            )
        return frames[0].as_float32()

    def _read(self, reply: NDArray[np.float32]) -> PlainLogits:
        """The logits (N, V) of a keyed reply (N, O)."""
        logits = self._bundle.plain_logits(KeyedReply(reply))
        if not np.isfinite(logits).all():
            raise CloudError(
                f"the cloud's answer ({self._bundle.info.reply}) is not finite: the model may "
                "be damaged"
            )
        return logits
