"""What a loaded model is for: sessions, whole texts and images, or both."""

from __future__ import annotations

from triparty.cloud.serving.hosting import AnyHosted, Hosted, HostedEncoder
from triparty.cloud.serving.sessions import Session, session_not_found
from triparty.common.errors import RequestError


def decoder_of(session: Session[AnyHosted]) -> Hosted:
    """The decoder of a session that a client has; nobody has the id of a forward request's.

    Raises:
        NotFoundError: it is a forward request's.
    """
    if not isinstance(session.hosted, Hosted):
        raise session_not_found()
    return session.hosted


def encoder_of(session: Session[AnyHosted]) -> HostedEncoder:
    """What answers whole inputs on the model of a forward request's session."""
    hosted = session.hosted
    sight = hosted.sight if isinstance(hosted, Hosted) else hosted
    if not isinstance(sight, HostedEncoder):
        raise wrong_kind(hosted.key.name, is_encoder=False)
    return sight


def can_encode(hosted: AnyHosted) -> bool:
    """Whether it answers whole inputs: an encoder, or a decoder that makes rows of images."""
    return isinstance(hosted.sight if isinstance(hosted, Hosted) else hosted, HostedEncoder)


def is_decoder(hosted: AnyHosted) -> bool:
    """Whether it keeps sessions."""
    return isinstance(hosted, Hosted)


def is_any(_: AnyHosted) -> bool:
    """A one-time instance is for one session, whatever it is an instance of."""
    return True


def wrong_kind(name: str, *, is_encoder: bool) -> RequestError:
    """What is answered where a model is asked as if it were of the other kind."""
    if is_encoder:
        return RequestError(
            f"model '{name}' is an encoder, which keeps no session: send whole texts or images "
            f"to POST /v1/models/{name}/forward"
        )
    return RequestError(
        f"model '{name}' is a decoder: open a session on it with "
        f"POST /v1/models/{name}/sessions"
    )
