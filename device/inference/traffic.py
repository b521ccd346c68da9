"""What one answer sent and got: counted where it leaves the device, for the user to see."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from triparty.common.replies import ForwardReply, SessionRecord, StepReply
from triparty.common.wire import Frame, encode_frames
from triparty.device.inference.conversation import Steps
from triparty.device.inference.forwarding import Forwards


@dataclass
class Traffic:
    """Sums over the requests of one answer, its decoys and repetitions included.

    Attributes:
        sessions: opened on the cloud.
        requests: that carried rows, keyed ids or keyed pixels.
        rows: keyed rows, or keyed ids, in them.
        positions: the highest position of a session that was reached.
        bytes_sent: of request bodies; headers and TLS come on top.
        bytes_received: of the replies' bodies.
        guesses: tokens that were sent ahead of the answer, to save round trips.
        wrong_guesses: of these, in no text.
    """

    sessions: int = 0
    requests: int = 0
    rows: int = 0
    positions: int = 0
    bytes_sent: int = 0
    bytes_received: int = 0
    guesses: int = 0
    wrong_guesses: int = 0


class CountedSteps:
    """The session routes of a cloud, with everything counted that passes.

    Args:
        steps: the way to the cloud.
        traffic: the sums, added to.
    """

    def __init__(self, steps: Steps, traffic: Traffic) -> None:
        """Counts from now on."""
        self._steps, self._traffic = steps, traffic

    def open_session(
        self, model: str, *, version: int | None = None, request_id: str | None = None
    ) -> SessionRecord:
        """Opens a session of a model."""
        named: dict[str, Any] = {} if version is None else {"version": version}
        named |= {} if request_id is None else {"request_id": request_id}
        session = self._steps.open_session(model, **named)
        self._traffic.sessions += 1
        return session

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
        """Sends keyed rows (T, D)."""
        count = len(rows.array)
        self._traffic.requests += 1
        self._traffic.rows += count
        self._traffic.bytes_sent += len(encode_frames(rows))
        self._traffic.positions = max(self._traffic.positions, position + count)
        answer = self._steps.step(
            session,
            rows,
            position=position,
            request_id=request_id,
            reply=reply,
            reply_rows=reply_rows,
            rollback_of=rollback_of,
        )
        self._traffic.bytes_received += sum(len(encode_frames(f)) for f in answer.frames)
        return answer

    def read_source(self, session: str, rows: Frame) -> None:
        """Sends the keyed rows (S, D) of a whole text."""
        self._traffic.requests += 1
        self._traffic.rows += len(rows.array)
        self._traffic.bytes_sent += len(encode_frames(rows))
        self._steps.read_source(session, rows)

    def rollback_session(self, session: str, *, position: int) -> None:
        """Takes back rows."""
        self._steps.rollback_session(session, position=position)

    def close_session(self, session: str) -> None:
        """Ends a session."""
        self._steps.close_session(session)


class CountedForwards:
    """The forward route of a cloud, with everything counted that passes.

    Args:
        forwards: the way to the cloud.
        traffic: the sums, added to.
    """

    def __init__(self, forwards: Forwards, traffic: Traffic) -> None:
        """Counts from now on."""
        self._forwards, self._traffic = forwards, traffic

    def open_session(
        self, model: str, *, version: int | None = None, request_id: str | None = None
    ) -> SessionRecord:
        """Opens the session of one request on a one-time instance."""
        session = self._forwards.open_session(model, version=version, request_id=request_id)
        self._traffic.sessions += 1
        return session

    def forward(
        self,
        model: str,
        inputs: Mapping[str, Frame],
        *,
        session: str | None = None,
        request_id: str | None = None,
    ) -> ForwardReply:
        """Sends named frames."""
        self._traffic.requests += 1
        self._traffic.bytes_sent += len(encode_frames(*inputs.values()))
        answer = self._forwards.forward(model, inputs, session=session, request_id=request_id)
        self._traffic.bytes_received += len(encode_frames(answer.frame))
        return answer

    def close_session(self, session: str) -> None:
        """Ends a session."""
        self._forwards.close_session(session)
