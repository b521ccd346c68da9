"""The latest statement: what is current, what is revoked, signed anew at every change.

A cut can come after the cloud took a statement and before this home noted it. The next one
therefore goes on from the later of the two: what is noted here, and what the cloud shows if it
carries this developer's signature.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta

from triparty.common.delegation import verify_signed
from triparty.common.errors import ArtifactError, CloudError, NotFoundError
from triparty.common.latest import Latest, sign_latest
from triparty.common.transport import CloudClient
from triparty.developer.home import Home, LatestState


def renew_latest(
    home: Home,
    client: CloudClient,
    *,
    now: datetime,
    days: int,
    versions: Mapping[str, int] | None = None,
    revoked: Iterable[str] = (),
    drain_s: int = 0,
) -> Latest:
    """Signs and uploads the next latest statement; notes it once the cloud has it.

    Args:
        home: of the developer.
        client: with the developer's token.
        now: when it is signed.
        days: how long it counts.
        versions: current versions, by `kind/name`; a later one that is current stays.
        revoked: further `kind/name@version`.
        drain_s: seconds for which open sessions of what is newly revoked may go on.

    Returns:
        The statement.

    Raises:
        ExpiredError: the publishing key is past its time.
        TransportError: the cloud was not reached; doing it again goes on.
    """
    before = _before(home, client, now=now)
    publishing = home.publishing()
    latest = Latest(
        developer=home.delegation(now).developer,
        sequence=before.sequence + 1,
        created=now,
        expires=now + timedelta(days=days),
        versions=_raised(before.versions, versions or {}),
        revoked=tuple(sorted({*before.revoked, *revoked})),
        signer=publishing.public.key_id,
    )
    client.put_statements(
        home.signed_delegation(), sign_latest(latest, publishing), drain_s=drain_s
    )
    home.keep_latest_state(LatestState(latest.sequence, dict(latest.versions), latest.revoked))
    return latest


def _before(home: Home, client: CloudClient, *, now: datetime) -> LatestState:
    """What the next statement goes on from."""
    noted = home.latest_state()
    try:
        shown = verify_signed(
            client.statements().latest,
            "latest",
            Latest.from_bytes,
            delegation=home.delegation(now),
            now=now,
        )
    except (NotFoundError, CloudError, ArtifactError):
        return noted  # none yet, or none of ours: it takes no part
    if shown.sequence <= noted.sequence:
        return noted
    revoked = tuple(sorted({*shown.revoked, *noted.revoked}))
    return LatestState(shown.sequence, _raised(shown.versions, noted.versions), revoked)


def _raised(one: Mapping[str, int], other: Mapping[str, int]) -> dict[str, int]:
    """The higher version of each name."""
    names = {*one, *other}
    return {name: max(one.get(name, 0), other.get(name, 0)) for name in names}
