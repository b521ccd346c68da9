"""Revocation: everything of the revoked stops before the answer, nothing of anybody else."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest

from triparty.cloud.accounts import check_alive
from triparty.cloud.serving.hosting import Hosted, ModelKey
from triparty.cloud.tables import PrincipalRow
from triparty.common.errors import TokenRevokedError


def delete(cloud, developer):
    return cloud.request("DELETE", f"/v1/developers/{developer.id}", cloud.operator)


def test_a_revoked_developer_stops_with_its_devices(cloud, developer, device, slug):
    other = cloud.developer("other")
    theirs = other.device("theirs")
    sent = developer.put(b"a blob")
    assert sent.status_code == 201
    invite = developer.invite()
    assert delete(cloud, developer).status_code == 204
    for who in (developer, device):
        for method, path in (("GET", "/v1/artifacts"), ("POST", "/v1/tokens/rotate")):
            refused = who.request(method, path)
            assert (refused.status_code, slug(refused)) == (401, "token-revoked")
    assert slug(developer.put(b"another")) == "token-revoked"
    assert slug(type(device)(developer, "late").enrol(invite)) == "invite"
    assert slug(developer.enrol(cloud.invite("developer", cloud.operator))) == "conflict"
    assert other.request("GET", "/v1/devices").status_code == 200
    assert theirs.request("GET", "/v1/artifacts").status_code == 200
    assert delete(cloud, developer).status_code == 204  # again


def test_the_operator_lists_developers(cloud, developer, device):
    other = cloud.developer("other")
    gone = developer.device("gone")
    developer.request("DELETE", f"/v1/devices/{gone.id}")
    delete(cloud, other)
    listed = cloud.request("GET", "/v1/developers", cloud.operator).json()["developers"]
    assert [(d["id"], d["name"], d["devices"], d["revoked"]) for d in listed] == [
        (row.id, row.name, devices, revoked)
        for row, devices, revoked in sorted(
            [(developer, 1, False), (other, 0, True)], key=lambda row: row[0].id
        )
    ]


def test_only_a_developer_is_revoked(cloud, developer, device, slug):
    for wrong in (device.id, "operator", "ed25519:" + "0" * 64):
        refused = cloud.request("DELETE", f"/v1/developers/{wrong}", cloud.operator)
        assert (refused.status_code, slug(refused)) == (404, "not-found")
    assert device.request("GET", "/v1/artifacts").status_code == 200


def test_a_revoked_device_pulls_nothing(cloud, developer, device, slug):
    developer.grant(device)
    (artifact,) = device.request("GET", "/v1/artifacts").json()["artifacts"]
    assert artifact
    developer.request("DELETE", f"/v1/devices/{device.id}")
    for path in ("/v1/artifacts", "/v1/latest", "/v1/blobs/" + "0" * 64):
        assert slug(device.request("GET", path)) == "token-revoked"


@pytest.mark.parametrize("whom", ["device", "developer"])
def test_who_is_revoked_while_a_model_loads_gets_no_session(cloud, developer, device, whom):
    """Let in by its token, then revoked before the session was there to be closed."""
    serving, loop_call = cloud.serving, cloud._portal.call
    model = SimpleNamespace(
        developer=developer.id, name="tiny", version=1, epoch=1, current=1, once=False
    )
    engine = SimpleNamespace(close=lambda _: None)
    worker = SimpleNamespace(call=lambda function: function())
    hosted = Hosted(ModelKey.of(model), engine, worker, positions=8)

    async def host(_, **__):
        revoked = {"device": device, "developer": developer}[whom]
        await asyncio.to_thread(revoke_in_database, cloud, revoked.id)
        return hosted

    serving._models.host = host
    with pytest.raises(TokenRevokedError):
        loop_call(serving.open_session, device.id, model)
    assert serving.session_count() == 0


def revoke_in_database(cloud, principal):
    with cloud.app.state.database.writing() as session:
        session.get_one(PrincipalRow, principal).revoked = cloud.now


def test_who_is_alive(cloud, developer, device):
    with cloud.app.state.database.reading() as session:
        for principal in (developer.id, device.id, "operator"):
            check_alive(session, principal)
        with pytest.raises(TokenRevokedError):
            check_alive(session, "ed25519:" + "0" * 64)
