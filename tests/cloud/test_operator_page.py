"""The operator's page: for the operator alone, true to the database, able to do one thing."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from fastapi.routing import APIRoute
from visited_page import ORIGIN, Visitor

from triparty.cloud.page.app import OPERATOR_PATH, is_secure, own_names, router
from triparty.cloud.settings import CloudSettings

DATABASES = ("sqlite", "postgresql")
PATHS = ["/", "/fragments/now", "/models", "/accounts", "/jobs"]


@pytest.fixture
def operator(cloud: Any) -> Visitor:
    visitor = Visitor(cloud.app)
    assert visitor.log_in(cloud.operator, root=OPERATOR_PATH).status_code == 303
    return visitor


def see(visitor: Visitor, path: str) -> str:
    answer = visitor.get(OPERATOR_PATH + path)
    assert answer.status_code == 200, path
    return answer.text


def revoke(visitor: Visitor, developer: str) -> int:
    form = {"csrf": visitor.word()}
    return visitor.post(f"{OPERATOR_PATH}/developers/{developer}/revoke", form).status_code


@pytest.mark.one_database
def test_every_page_is_for_the_operator_alone(cloud, developer, device) -> None:
    routes = [
        (method, route.path.replace("{developer}", developer.id))
        for route in router.routes
        if isinstance(route, APIRoute)
        for method in route.methods
    ]
    assert len(routes) == len(PATHS) + 1
    for token in ("", "tpt_" + "A" * 43, developer.token, device.token, f" {device.token} "):
        nobody = Visitor(cloud.app)
        assert nobody.log_in(token, root=OPERATOR_PATH).status_code == 401
        assert not nobody.cookies
        for method, path in routes:
            answer = nobody.request(method, OPERATOR_PATH + path, headers={"Origin": ORIGIN})
            assert answer.status_code in (303, 401), path
            assert developer.name not in answer.text


@pytest.mark.one_database
def test_a_bearer_token_opens_no_page_and_a_cookie_no_route(cloud, operator) -> None:
    sent = {"Authorization": f"Bearer {cloud.operator}"}
    stranger = Visitor(cloud.app)
    assert stranger.request("GET", f"{OPERATOR_PATH}/accounts", headers=sent).status_code == 303
    assert operator.get("/v1/status").status_code == 401
    assert "triparty-operator" in operator.cookies


@pytest.mark.one_database
def test_the_session_ends_with_its_token(cloud, operator) -> None:
    see(operator, "/")
    answer = cloud.request("POST", "/v1/tokens/rotate", cloud.operator)
    assert answer.status_code == 200
    assert operator.get(f"{OPERATOR_PATH}/").status_code == 303
    other = Visitor(cloud.app)
    assert other.log_in(cloud.operator, root=OPERATOR_PATH).status_code == 401
    assert other.log_in(answer.json()["token"], root=OPERATOR_PATH).status_code == 303
    cloud.now += timedelta(days=4000)
    assert other.get(f"{OPERATOR_PATH}/").status_code == 303


@pytest.mark.one_database
def test_other_pages_revoke_nobody(cloud, operator, developer) -> None:
    path = f"{OPERATOR_PATH}/developers/{developer.id}/revoke"
    word = operator.word()
    for headers, form in (
        ({}, {"csrf": word}),
        ({"Origin": "https://evil.example"}, {"csrf": word}),
        ({"Origin": ORIGIN}, {}),
        ({"Origin": ORIGIN}, {"csrf": "x" * 43}),
    ):
        answer = operator.request("POST", path, data=form, headers=headers)
        assert answer.status_code == 403
    for method in ("GET", "DELETE", "PUT"):
        sent = {"Origin": ORIGIN, "X-CSRF-Token": word}
        assert operator.request(method, path, headers=sent).status_code == 405
    assert developer.request("GET", "/v1/devices").status_code == 200
    evil = operator.get(f"{OPERATOR_PATH}/", Host="evil.example")
    assert evil.status_code == 403


def test_accounts_are_shown_and_revoked(cloud, operator, developer, device) -> None:
    other = cloud.developer("<b>other</b>")
    shown = see(operator, "/accounts")
    assert developer.name in shown
    assert device.name in shown
    assert "<b>other" not in shown
    assert "&lt;b&gt;other" in shown
    for secret in (
        cloud.operator,
        developer.token,
        device.token,
        device.identity.public.to_text(),
    ):
        assert secret not in shown
    assert revoke(operator, developer.id) == 303
    assert device.request("GET", "/v1/artifacts").status_code == 401
    assert other.request("GET", "/v1/devices").status_code == 200
    shown = see(operator, "/accounts")
    assert "revoked 2026-01-02 03:04" in shown
    assert shown.count("for good") == 1, "the other may still be revoked"
    assert revoke(operator, device.id) == 404, "its developer does that"
    assert revoke(operator, "nobody") == 404


def test_models_are_shown_with_versions_and_epochs(cloud, operator, developer, device) -> None:
    assert "No model" in see(operator, "/models")
    files = {"config.json": b"{}"}
    assert developer.publish(files).status_code == 201
    assert developer.publish(files, version=2, epoch=7).status_code == 201
    assert developer.grant(device, version=3, epoch=7).status_code == 201
    shown = see(operator, "/models")
    rows = [
        " ".join(row.replace("<", " <").split())
        for row in shown.split("<tbody>")[1].split("</tr>")[:-1]
    ]
    assert len(rows) == 2, "bundles are no models"
    assert '"Version">2 <' in rows[0]
    assert '"Epoch">7 <' in rows[0]
    assert '"Devices">1 <' in rows[0]
    assert '"Version">1 <' in rows[1]
    assert '"Devices">0 <' in rows[1]
    assert "in use" in rows[0]


def test_the_first_page_says_what_the_command_says(cloud, operator, developer, device) -> None:
    status = cloud.request("GET", "/v1/status", cloud.operator).json()
    for path in ("/", "/fragments/now"):
        shown = see(operator, path)
        assert (
            f"devices of {status['developers']} developers</dt><dd>{status['devices']}" in shown
        )
        assert f"Version</dt><dd>{status['version']}" in shown
    assert "No job" in see(operator, "/jobs")


@pytest.mark.one_database
def test_what_the_cloud_is_called(tmp_path) -> None:
    here = CloudSettings(data=tmp_path)
    assert not own_names(here).include("cloud.example")
    assert not own_names(here).include("10.0.0.7")
    proxied = CloudSettings(data=tmp_path, url="https://cloud.example")
    assert own_names(proxied).include("cloud.example")
    assert is_secure(proxied)
    assert not is_secure(here)
    assert own_names(CloudSettings(data=tmp_path, host="0.0.0.0")).include("10.0.0.7")
