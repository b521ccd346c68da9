"""The latest statement: what is current, what is revoked, signed anew at every change."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta

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
) -> Latest:
    """Signs and uploads the next latest statement; notes it once the cloud has it.

    Args:
        home: of the developer.
        client: with the developer's token.
        now: when it is signed.
        days: how long it counts.
        versions: changes of current versions, by `kind/name`.
        revoked: further `kind/name@version`.

    Returns:
        The statement.
    """
    before = home.latest_state()
    publishing = home.publishing()
    latest = Latest(
        developer=home.delegation(now).developer,
        sequence=before.sequence + 1,
        created=now,
        expires=now + timedelta(days=days),
        versions={**before.versions, **(versions or {})},
        revoked=tuple(sorted({*before.revoked, *revoked})),
        signer=publishing.public.key_id,
    )
    client.put_statements(home.signed_delegation(), sign_latest(latest, publishing))
    home.keep_latest_state(LatestState(latest.sequence, dict(latest.versions), latest.revoked))
    return latest
