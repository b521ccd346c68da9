"""Requests of nobody: each address pays for its own failures, known tokens for nobody's."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from triparty.cloud.accounts import hash_token
from triparty.cloud.attempts import Attempts
from triparty.cloud.auth import TokenCache
from triparty.common.buckets import MOST_BUCKETS, Buckets
from triparty.common.errors import LimitError, SettingsError, UnavailableError

PROXY = "192.0.2.1"  # where the tests' requests come from
WRONG = "tpt_" + "A" * 43


def ask(
    cloud: Any, token: str | None = WRONG, *, of: str = "", path: str = "/v1/devices"
) -> Any:
    """A request, on behalf of another address if the cloud believes its proxy."""
    headers = {"X-Forwarded-For": of} if of else {}
    return cloud.request("GET", path, token, headers=headers)


def statuses(cloud: Any, count: int, **kwargs: Any) -> list[int]:
    return [ask(cloud, **kwargs).status_code for _ in range(count)]


@pytest.mark.parametrize(
    "request_of_nobody",
    [
        ("GET", "/v1/devices", {}),
        ("GET", "/v1/devices", {"headers": {"Authorization": f"Bearer {WRONG}"}}),
        ("GET", "/v1/devices", {"headers": {"Authorization": "Bearer no such form"}}),
        ("GET", "/v1/nothing", {}),
        ("POST", "/v1/artifacts", {"content": b"{", "headers": {"Content-Type": "text/plain"}}),
        (
            "POST",
            "/v1/artifacts",
            {"content": b"{", "headers": {"Content-Type": "application/json"}},
        ),
        ("PUT", "/v1/blobs/" + "0" * 64, {"content": b"x"}),
    ],
    ids=lambda case: f"{case[0]} {case[1]} {sorted(case[2])}",
)
def test_failures_run_out_and_come_back(make_cloud, slug, request_of_nobody):
    method, path, options = request_of_nobody
    cloud = make_cloud(failures_per_minute=3)
    answers = [cloud.request(method, path, **options) for _ in range(4)]
    assert all(400 <= answer.status_code < 429 for answer in answers[:3])
    refused = answers[3]
    assert (refused.status_code, slug(refused)) == (429, "limit")
    assert refused.headers["Retry-After"] == "20"
    cloud.now += timedelta(seconds=20)
    again = [cloud.request(method, path, **options).status_code for _ in range(2)]
    assert again == [answers[0].status_code, 429]


def test_a_refused_request_asks_the_database_nothing(make_cloud):
    cloud = make_cloud(failures_per_minute=1)
    asked: list[str] = []
    cloud.app.state.tokens.look_up = lambda token, *_: asked.append(token)
    statuses(cloud, 1, token=None)
    assert statuses(cloud, 2) == [429, 429]
    assert asked == []


def test_a_known_token_goes_on_beside_failing_neighbours(make_cloud, slug):
    cloud = make_cloud(failures_per_minute=3)
    developer = cloud.developer()
    assert developer.request("GET", "/v1/devices").status_code == 200
    assert statuses(cloud, 4) == [401, 401, 401, 429]
    cloud.app.state.tokens.forget_all()  # as after the second for which it is kept
    assert developer.request("GET", "/v1/devices").status_code == 200
    rotated = developer.request("POST", "/v1/tokens/rotate").json()["token"]
    assert ask(cloud, rotated).status_code == 200  # known by whom it was given to
    assert ask(cloud, developer.token).status_code == 401  # looked up, and no longer known
    assert ask(cloud, developer.token).status_code == 429


def test_a_token_is_known_before_its_first_request_and_after_a_restart(make_cloud):
    cloud = make_cloud(failures_per_minute=3)
    developer = cloud.developer()
    for _ in range(2):
        assert statuses(cloud, 4)[-1] == 429
        assert developer.request("GET", "/v1/devices").status_code == 200
        cloud.restart()


def test_a_token_made_by_another_process_waits_no_longer_than_it_is_told(make_cloud):
    cloud = make_cloud(failures_per_minute=3)
    statuses(cloud, 3)
    token = cloud.fresh_operator()
    refused = ask(cloud, token, path="/v1/status")
    assert refused.status_code == 429
    cloud.now += timedelta(seconds=int(refused.headers["Retry-After"]))
    assert ask(cloud, token, path="/v1/status").status_code == 200


def test_wrong_tokens_do_not_keep_new_devices_out(make_cloud):
    cloud = make_cloud(failures_per_minute=1, enrolments_per_minute=1)
    statuses(cloud, 2)
    cloud.developer()
    refused = [cloud.request("POST", "/v1/enroll", json={}).status_code for _ in range(2)]
    assert refused == [422, 429]


def test_what_needs_no_token_is_always_answered(make_cloud):
    cloud = make_cloud(failures_per_minute=1)
    statuses(cloud, 2)
    for path in ("/healthz", "/readyz", "/openapi.json"):
        assert ask(cloud, None, path=path).status_code == 200


@pytest.mark.parametrize(
    ("error", "status"), [(RuntimeError("broken"), 500), (UnavailableError("away"), 503)]
)
def test_a_failure_of_the_cloud_counts_against_nobody(make_cloud, error, status):
    cloud = make_cloud(failures_per_minute=1)

    def fails(*_: object) -> None:
        raise error

    cloud.app.state.tokens.look_up = fails
    assert statuses(cloud, 3) == [status] * 3


def test_known_principals_who_are_refused_cost_nothing(make_cloud):
    cloud = make_cloud(failures_per_minute=1)
    developer = cloud.developer()
    for _ in range(3):
        assert developer.request("GET", "/v1/devices/nobody").status_code == 404
    assert statuses(cloud, 1) == [401]


def test_behind_a_trusted_proxy_each_client_pays_for_itself(make_cloud):
    cloud = make_cloud(failures_per_minute=2, trusted_proxies=[PROXY])
    assert statuses(cloud, 3, of="203.0.113.7") == [401, 401, 429]
    assert statuses(cloud, 1, of="203.0.113.8") == [401]
    forged = "203.0.113.99, 203.0.113.7"  # what the client wrote, then what the proxy saw
    assert statuses(cloud, 1, of=forged) == [429]
    assert statuses(cloud, 3, of="2001:db8::1") == [401, 401, 429]
    assert statuses(cloud, 1, of="2001:db8::2:3") == [429]  # the same /64
    assert statuses(cloud, 1, of="2001:db8:0:1::1") == [401]


@pytest.mark.parametrize("trusted", [[], ["198.51.100.0/24"]], ids=str)
def test_nobody_else_may_claim_another_address(make_cloud, trusted):
    cloud = make_cloud(failures_per_minute=2, trusted_proxies=trusted)
    answers = [ask(cloud, of=f"203.0.113.{last}").status_code for last in range(3)]
    assert answers == [401, 401, 429]


@pytest.mark.parametrize("trusted", ["*", "proxy.example", "0.0.0.0/0", "::/0", "10.0.0.1/8"])
def test_a_proxy_is_named_by_its_address(make_cloud, trusted):
    with pytest.raises(SettingsError, match="trusted_proxies"):
        make_cloud(trusted_proxies=[trusted])


def test_memory_is_bounded():
    buckets = Buckets(per_s=1, most=1)
    for number in range(MOST_BUCKETS + 10):
        buckets.filled(str(number), 0.0).left = 0.0
    assert len(buckets) == MOST_BUCKETS
    assert buckets.filled(str(MOST_BUCKETS), 0.0).left == 0.0  # the newest is remembered
    assert buckets.filled("0", 0.0).left == 1.0  # the oldest is not


def test_familiar_tokens_are_bounded(monkeypatch):
    monkeypatch.setattr("triparty.cloud.auth.MOST_FAMILIAR", 3)
    cache = TokenCache()
    tokens = "abcd"
    for token in "abcad":
        cache.introduce(hash_token(token), is_used=False)
    assert [cache.was_good(name) for name in tokens] == [True, False, True, True]


def test_a_clock_that_goes_back_shuts_nobody_out_for_long():
    now = [1e6]
    attempts = Attempts(60, clock_s=lambda: now[0])
    for _ in range(60):
        attempts.count("a")
    now[0] -= 3600
    with pytest.raises(LimitError) as error:
        attempts.check("a")
    assert error.value.extra["retry_after_s"] == 1
    now[0] += 1
    attempts.check("a")
