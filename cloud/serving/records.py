"""What a client asks of serving, and what it learns of its session."""

from __future__ import annotations

from dataclasses import dataclass

from triparty.cloud.serving.engine import EncoderInfo, ModelInfo, Reply, ReplyKind, Rows
from triparty.cloud.serving.hosting import AnyHosted, HostedEncoder
from triparty.cloud.serving.kinds import decoder_of
from triparty.cloud.serving.sessions import Session, StoredReply
from triparty.cloud.serving.settings import ServingSettings


@dataclass(frozen=True)
class SessionInfo:
    """What a client learns about its session.

    Attributes:
        session: its id.
        model: name of the model.
        version: of the model.
        epoch: key generation of the model.
        position: rows that the session has.
        positions: most rows that it may have.
        replies: what a step may ask for.
        reply_rows: most rows of a step that it may ask it about.
    """

    session: str
    model: str
    version: int
    epoch: int
    position: int
    positions: int
    replies: tuple[ReplyKind, ...]
    reply_rows: int

    @classmethod
    def of(cls, session: Session[AnyHosted], settings: ServingSettings) -> SessionInfo:
        """The public part of a session."""
        hosted = session.hosted
        key = hosted.key
        replies: tuple[ReplyKind, ...]
        if isinstance(hosted, HostedEncoder):
            positions, replies, reply_rows = hosted.info.positions, (hosted.info.reply,), 1
        else:
            decoder = decoder_of(session)
            positions, replies = decoder.positions, decoder.engine.info.replies
            reply_rows = reply_rows_of(decoder.engine.info, settings)
        return cls(
            session=session.id,
            model=key.name,
            version=key.version,
            epoch=key.epoch,
            position=session.position,
            positions=positions,
            replies=replies,
            reply_rows=reply_rows,
        )


@dataclass(frozen=True, eq=False)
class StepRequest:
    """One step as a client sends it.

    Attributes:
        position: where its first row belongs.
        request_id: the client's name for the step; repeating it repeats the answer.
        reply: what to answer.
        rows: (T, D) float32.
        rollback_of: request id of the session's last step, of which the rows from `position`
            on are taken back first; None takes none back.
    """

    position: int
    request_id: str
    reply: Reply
    rows: Rows
    rollback_of: str | None = None


@dataclass(frozen=True, eq=False)
class ForwardTurn:
    """Room for one forward request.

    Attributes:
        session: what it counts as, until it is answered; or the one that it is asked in.
        hosted: the encoder.
        request_id: the client's name for it, in a session.
    """

    session: Session[AnyHosted]
    hosted: HostedEncoder
    request_id: str | None = None

    @property
    def answered(self) -> StoredReply | None:
        """The answer, if the same request had it before."""
        return self.session.stored if self.request_id is not None else None

    def keep(self, body: bytes) -> None:
        """Keeps the answer for a repeated request."""
        if self.request_id is not None:
            self.session.stored = StoredReply(self.request_id, body, 0)

    @property
    def info(self) -> EncoderInfo:
        """What the encoder takes and answers."""
        return self.hosted.info


def reply_rows_of(info: ModelInfo, settings: ServingSettings) -> int:
    """Most rows that a step may ask about, whether it asks for hidden states or logits."""
    kinds = {ReplyKind.HIDDEN, ReplyKind.LOGITS}.intersection(info.replies)
    widest = max(info.reply_bytes(Reply(kind)) for kind in kinds)
    return max(1, min(settings.max_reply_rows, settings.max_body_bytes // widest))
