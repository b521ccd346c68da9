"""`/metrics`: known traffic gives known numbers, and nobody else gives or gets any."""

from __future__ import annotations

import os

import pytest
from prometheus_client.parser import text_string_to_metric_families

from triparty.cloud.overview import lines
from triparty.cloud.serving.durations import Durations
from triparty.cloud.serving.sessions import Ending
from triparty.cloud.serving.worker import WorkerCounts

TOKEN = "scrape-" + "s" * 40


@pytest.fixture
def cloud(make_cloud):
    return make_cloud(metrics_token=TOKEN)


def samples(cloud) -> dict[str, float]:
    """Every sample by its name and labels as they are written."""
    answer = cloud.request("GET", "/metrics", TOKEN)
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain")
    found = {}
    for family in text_string_to_metric_families(answer.text):
        assert family.name.startswith("triparty_")
        for sample in family.samples:
            labels = ",".join(
                f'{key}="{value}"' for key, value in sorted(sample.labels.items())
            )
            found[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
    return found


def requests(route: str, status: int, method: str = "GET") -> str:
    return f'triparty_requests_total{{method="{method}",route="{route}",status="{status}"}}'


def test_known_traffic_gives_known_numbers(cloud, developer, device):
    blob = b'{"weights": 1}'
    before = samples(cloud)
    developer.publish({"config.json": blob})
    developer.grant(device)
    assert developer.request("GET", "/v1/artifacts").status_code == 200
    assert device.request("GET", "/v1/status").status_code == 403
    assert cloud.request("GET", "/v1/status", "tpt_wrong").status_code == 401
    assert cloud.request("POST", "/v1/enroll", content=b"{}").status_code == 415
    half = {"Content-Range": "bytes 0-0/2", "Content-Type": "application/octet-stream"}
    upload = developer.request("PUT", "/v1/blobs/" + "0" * 64, content=b"x", headers=half)
    assert upload.status_code == 308
    after = samples(cloud)
    grown = {key: value - before.get(key, 0) for key, value in after.items()}

    blobs = "/v1/blobs/{sha256}"
    assert grown[requests(blobs, 201, "PUT")] == 2
    assert grown[requests(blobs, 308, "PUT")] == 1
    assert grown[requests("/v1/artifacts", 201, "POST")] == 2
    assert grown[requests("/v1/artifacts", 200)] == 1
    assert grown[requests("/v1/status", 403)] == grown[requests("/v1/status", 401)] == 1
    assert grown[requests("none", 415, "POST")] == 1
    assert grown[requests("/metrics", 200)] == 1  # the scrape before this one

    sealed = b"sealed to " + device.id.encode()
    assert grown[f'triparty_received_bytes_total{{route="{blobs}"}}'] == len(blob + sealed) + 1
    assert grown['triparty_sent_bytes_total{route="/v1/artifacts"}'] > 0
    assert grown[f'triparty_request_seconds_count{{route="{blobs}"}}'] == 3
    assert grown[f'triparty_request_seconds_bucket{{le="+Inf",route="{blobs}"}}'] == 3
    for slug in ("forbidden", "unauthenticated", "request"):
        assert grown[f'triparty_problems_total{{type="{slug}"}}'] == 1

    roles = {
        role: after[f'triparty_principals{{role="{role}"}}'] for role in ("developer", "device")
    }
    assert roles == {"developer": 1, "device": 1}
    assert after['triparty_artifacts{kind="model"}'] == 1
    assert after['triparty_artifacts{kind="bundle"}'] == 1
    assert after['triparty_artifacts{kind="gate"}'] == 0
    assert after["triparty_invites_open"] == 0
    assert after["triparty_blob_bytes"] == len(blob + sealed)
    assert after["triparty_uploads_open"] == 1
    assert after["triparty_sessions_open"] == after["triparty_models_loaded"] == 0
    assert any(key.startswith("triparty_build_info{") for key in after)


def test_a_problem_that_a_route_answers_itself_is_counted(cloud, developer):
    late = {"Content-Range": "bytes 1-1/2"}
    refused = developer.request("PUT", "/v1/blobs/" + "0" * 64, content=b"x", headers=late)
    assert refused.status_code == 409
    assert samples(cloud)['triparty_problems_total{type="conflict"}'] == 1


def test_blob_bytes_survive_a_restart(cloud, developer):
    developer.put(b"12345")
    assert samples(cloud)["triparty_blob_bytes"] == 5
    cloud.restart()
    assert samples(cloud)["triparty_blob_bytes"] == 5
    developer.put(b"678")
    assert samples(cloud)["triparty_blob_bytes"] == 8


@pytest.mark.parametrize(
    "token", [None, "", "x", TOKEN + "x", TOKEN[:-1], "é", "tpt_" + "Z" * 43]
)
def test_another_token_gets_nothing(cloud, slug, token):
    headers = {} if token is None else {"Authorization": f"Bearer {token}".encode()}
    refused = cloud.request("GET", "/metrics", headers=headers)
    assert (refused.status_code, slug(refused)) == (401, "unauthenticated")
    assert "triparty_" not in refused.text
    assert refused.headers["www-authenticate"] == "Bearer"


def test_the_token_of_a_principal_opens_no_metrics_and_theirs_nothing_else(cloud, developer):
    for token in (cloud.operator, developer.token):
        assert cloud.request("GET", "/metrics", token).status_code == 401
    for path in ("/v1/status", "/v1/devices", "/v1/artifacts"):
        assert cloud.request("GET", path, TOKEN).status_code == 401


def test_without_a_token_in_the_settings_there_is_no_such_route(make_cloud):
    cloud = make_cloud()
    nothing = cloud.request("GET", "/nothing")
    for token in (None, "", TOKEN, cloud.operator):
        assert cloud.request("GET", "/metrics", token).json() == nothing.json()


def test_strange_requests_do_not_make_labels(cloud, developer, device):
    for path in ("/metrics", "/v1/nothing", "/v1/blobs/" + "0" * 64, "/v1/sessions/0/step"):
        for method in ("GET", "PURGE", "POST"):
            cloud.request(method, path, developer.token)
    before = set(samples(cloud)) | {requests("/metrics", 200)}
    for _ in range(20):
        secret = os.urandom(8).hex()
        developer.request("GET", f"/v1/{secret}")
        developer.request("GET", f"/v1/blobs/{secret * 4}")
        developer.request(secret.upper(), "/v1/nothing")
        developer.request("POST", f"/v1/sessions/{secret}/step")
    after = set(samples(cloud))
    assert {key for key in after - before if "seconds_bucket" not in key} <= {
        key for key in after if 'method="other",route="none"' in key
    }
    text = cloud.request("GET", "/metrics", TOKEN).text
    for private in (developer.id, device.id, developer.name, device.name, secret, "tiny"):
        assert private not in text


def test_a_short_scrape_token_is_refused(make_cloud):
    with pytest.raises(Exception, match="metrics_token") as refused:
        make_cloud(metrics_token="short")
    assert "short" not in str(refused.value).replace("shorter", "")


def test_serving_is_measured(make_cloud):
    """Queue, passes, memory and why sessions ended; names only as many as asked for."""
    cloud = make_cloud(metrics_token=TOKEN, metrics_names=1, max_memory_bytes=1 << 20)
    serving = cloud.serving
    for name, rows in (("first", 3), ("second", 4), ("third", 5), ("first", 1)):
        serving._by_model.count(name, rows=rows)
    serving._models._unloaded += WorkerCounts(
        ran=Durations.of(0.004, 0.3), waited=Durations.of(0.0005, 40.0)
    )
    serving._sessions.endings[Ending.REPLACED] += 2
    page = samples(cloud)
    assert page['triparty_model_rows_total{model="first"}'] == 4
    assert page['triparty_model_replies_total{model="other"}'] == 2
    assert page['triparty_model_rows_total{model="other"}'] == 9
    assert not any('"second"' in name or '"third"' in name for name in page)
    assert page['triparty_queue_seconds_bucket{le="0.001"}'] == 1
    assert page['triparty_queue_seconds_bucket{le="30.0"}'] == 1
    assert page['triparty_queue_seconds_bucket{le="+Inf"}'] == 2
    assert page["triparty_batch_seconds_count"] == 2
    assert page["triparty_batch_seconds_sum"] == pytest.approx(0.304)
    assert page['triparty_sessions_ended_total{reason="replaced"}'] == 2
    assert page['triparty_sessions_ended_total{reason="idle"}'] == 0
    assert page["triparty_memory_limit_bytes"] == 1 << 20
    status = cloud.request("GET", "/v1/status", cloud.operator).json()
    assert status["pass_ms"] == 152.0
    assert status["sessions_ended"]["replaced"] == 2
    shown = "\n".join(lines(status))
    assert "2 replaced" in shown
    assert "1.0 MB" in shown


def test_nobody_is_named_unless_asked_for(cloud):
    cloud.serving._by_model.count("secret-name", rows=3)
    assert not any("secret-name" in name for name in samples(cloud))
