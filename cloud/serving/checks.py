"""Whether a request fits its session and its model: pure, before anything runs."""

from __future__ import annotations

from triparty.cloud.serving.engine import ModelInfo, ReplyKind, Rows
from triparty.cloud.serving.hosting import AnyHosted
from triparty.cloud.serving.kinds import decoder_of
from triparty.cloud.serving.records import StepRequest
from triparty.cloud.serving.sessions import Session
from triparty.cloud.serving.settings import ServingSettings
from triparty.common.errors import PositionError, RequestError, TooLargeError


def check_step(
    session: Session[AnyHosted], request: StepRequest, settings: ServingSettings
) -> None:
    """Compares a step with where its session stands and with what its model takes.

    Raises:
        PositionError: it does not continue the session.
        TooLargeError: more rows than a step, its reply or the session may have.
        RequestError: rows or a reply that the model does not have.
    """
    hosted, rows = decoder_of(session), request.rows
    info = hosted.engine.info
    if request.position != session.position and not _takes_back(session, request):
        raise PositionError(
            f"the session is at position {session.position}, the step begins at "
            f"{request.position}",
            position=session.position,
        )
    if info.reads and not session.source_rows:
        raise RequestError(
            "this model answers a text: have it read with POST "
            "/v1/sessions/{id}/source before the first step"
        )
    if rows.ndim != 2 or rows.shape[1] != info.width or not len(rows):
        raise RequestError(
            f"a step is a frame of shape (T, {info.width}), T at least 1, got {rows.shape}"
        )
    end = request.position + len(rows)
    if len(rows) > settings.max_rows_per_step:
        raise TooLargeError(
            f"a step has at most {settings.max_rows_per_step} rows, "
            f"got {len(rows)}: send them in several steps"
        )
    if end > hosted.positions:
        raise TooLargeError(
            f"a session of this model has at most {hosted.positions} positions, "
            f"the step would end at {end}"
        )
    if request.reply.kind not in info.replies:
        raise RequestError(
            f"this model replies {', '.join(info.replies)}, got {request.reply.kind}: its "
            f"head is not on the cloud but in the bundles of its devices"
        )
    if request.reply.kind is ReplyKind.TOPK and request.reply.k > info.vocabulary:
        raise RequestError(
            f"topk is at most the vocabulary, {info.vocabulary}, got {request.reply.k}"
        )
    _check_reply_rows(info, request, settings)


def _check_reply_rows(info: ModelInfo, request: StepRequest, settings: ServingSettings) -> None:
    """A reply about one row is always allowed."""
    wanted, most = request.reply.rows, settings.max_reply_rows
    if wanted > len(request.rows):
        raise RequestError(
            f"a reply is about at most the {len(request.rows)} rows of its step, got {wanted}"
        )
    if wanted > most:
        raise TooLargeError(f"a reply is about at most {most} rows, got {wanted}")
    size, limit = wanted * info.reply_bytes(request.reply), settings.max_body_bytes
    if wanted > 1 and size > limit:
        raise TooLargeError(
            f"the reply would have {size} bytes, limit {limit}: ask about fewer rows"
        )


def check_source(session: Session[AnyHosted], rows: Rows, settings: ServingSettings) -> None:
    """Compares a text with where its session stands and with what its model takes.

    Raises:
        PositionError: the session has rows of an answer.
        TooLargeError: more rows than a step may have.
        RequestError: a model without an encoder, or rows of the wrong width.
    """
    hosted = decoder_of(session)
    width = hosted.engine.info.width
    if not hosted.engine.info.reads:
        raise RequestError(f"model '{hosted.key.name}' has no encoder: send the text in steps")
    if session.position:
        raise PositionError(
            "the text is read before the first step: roll back to 0, or open a session",
            position=session.position,
        )
    if rows.ndim != 2 or rows.shape[1] != width or not len(rows):
        raise RequestError(
            f"a text is a frame of shape (S, {width}), S at least 1, got {rows.shape}"
        )
    most = min(settings.max_rows_per_step, hosted.positions)
    if len(rows) > most:
        raise TooLargeError(
            f"the text has {len(rows)} rows, this cloud's limit for one that is read whole "
            f"is {most}: shorten it"
        )


def _takes_back(session: Session[AnyHosted], request: StepRequest) -> bool:
    """Whether a step begins inside the last one, and knows which that was.

    A position alone would not do: it comes again, so that a late copy of a step that ran long
    ago could take back what others have appended since.
    """
    last = session.stored
    return (
        last is not None
        and request.rollback_of == last.request_id
        and request.position < session.position
    )


def check_open(session: Session[AnyHosted]) -> None:
    """Raises why a session ended, if it did."""
    if session.closed:
        raise session.because
